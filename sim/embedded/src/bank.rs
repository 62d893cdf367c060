//! The bug bank: deliberate mistakes, as patches of the product, and how soon they are found.
