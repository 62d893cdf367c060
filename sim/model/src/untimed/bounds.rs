//! How much may happen, so that there is a last state.

/// The names and the sizes that can be asked for.
pub const SIZES: [(&str, Bounds); 6] = [
    ("takeover", Bounds::TAKEOVER),
    ("offices", Bounds::OFFICES),
    ("handover", Bounds::HANDOVER),
    ("stop", Bounds::STOP),
    ("restore", Bounds::RESTORE),
    ("large", Bounds::LARGE),
];

/// See the module's head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Epochs of one lineage.
    pub epochs: u64,
    /// Durable batches.
    pub commits: u64,
    /// Attempts of one owner after its first.
    pub attempts: u32,
    /// Sessions.
    pub sessions: u64,
    /// Offices.
    pub offices: u64,
    /// Stops that a person asks for.
    pub stops: u8,
    /// Times that a person asks that it runs again.
    pub resumes: u8,
    /// Moves that a person asks for.
    pub moves: u8,
    /// Restores of the store.
    pub restores: u8,
    /// Live sessions that a coordinator takes for gone.
    pub suspicions: u8,
    /// Deaths of a process.
    pub crashes: u8,
}

impl Bounds {
    const NOTHING: Bounds = Bounds {
        epochs: 2,
        commits: 2,
        attempts: 0,
        sessions: 2,
        offices: 1,
        stops: 0,
        resumes: 0,
        moves: 0,
        restores: 0,
        suspicions: 0,
        crashes: 0,
    };
    /// A node is lost, or is taken for lost, or starts anew, while its writes are under way.
    pub const TAKEOVER: Bounds = Bounds { attempts: 1, sessions: 3, crashes: 1, ..Bounds::NOTHING };
    /// Coordinators depose each other.
    pub const OFFICES: Bounds = Bounds { commits: 1, sessions: 2, offices: 2, suspicions: 1, ..Bounds::NOTHING };
    /// A planned move that a person asks for.
    pub const HANDOVER: Bounds = Bounds { sessions: 3, moves: 1, ..Bounds::NOTHING };
    /// A stop, which may be taken back.
    pub const STOP: Bounds = Bounds { attempts: 1, stops: 1, resumes: 1, ..Bounds::NOTHING };
    /// The store goes back in time.
    pub const RESTORE: Bounds = Bounds { sessions: 3, offices: 2, commits: 1, restores: 1, ..Bounds::NOTHING };
    /// Everything at once.
    pub const LARGE: Bounds = Bounds {
        epochs: 3,
        commits: 3,
        attempts: 1,
        sessions: 4,
        offices: 2,
        stops: 1,
        resumes: 1,
        moves: 1,
        restores: 1,
        suspicions: 1,
        crashes: 1,
    };

    /// The size of that name.
    pub fn named(name: &str) -> Option<Bounds> {
        SIZES.iter().find(|(known, _)| *known == name).map(|(_, bounds)| *bounds)
    }
}
