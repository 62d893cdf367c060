//! Why a flow has no place, in words that name what is in the way.

use std::fmt;

use super::{
    board::Board,
    view::{Labels, RoomState, View},
};
use crate::{
    flow::{Reason, supervisor::Code},
    id::NodeName,
};

/// What is in a flow's way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoPlace {
    /// No node runs flows.
    NoNodes,
    /// No node has these labels; each of them, or all of them together.
    Labels {
        /// The labels in question.
        missing: Labels,
        /// True if each is somewhere, but no node has all.
        together: bool,
    },
    /// The nodes that would do take no flows.
    Closed {
        /// Some of them, and why.
        nodes: Vec<(NodeName, RoomState)>,
        /// How many there are.
        count: usize,
    },
    /// None of the nodes that would do has so much capacity left.
    Full {
        /// The flow's weight.
        weight: u64,
        /// How many nodes would do.
        count: usize,
        /// The one with the most left.
        node: NodeName,
        /// How much that is.
        left: u64,
    },
}

/// How many nodes an explanation names.
const NAMED_MAX: usize = 3;

impl NoPlace {
    /// As the reason of a flow that should run and does not.
    pub fn reason(&self) -> Reason {
        Reason { code: Code::NoNode, detail: self.to_string() }
    }

    /// What was in the way of a flow that the board offered no room.
    pub(crate) fn find(view: &View, board: &Board<'_>, seat: u32) -> NoPlace {
        let require = &view.requires[board.seat(seat).require as usize];
        if view.rooms.is_empty() {
            return NoPlace::NoNodes;
        }
        let open = board.rooms_of(board.class_of(seat));
        if !open.is_empty() {
            return full(view, board, seat, open);
        }
        let would_do = || view.rooms.iter().filter(|room| room.has(require));
        let count = would_do().count();
        if count > 0 {
            let nodes = would_do().take(NAMED_MAX).map(|room| (room.name.clone(), room.state)).collect();
            return NoPlace::Closed { nodes, count };
        }
        labels(view, require)
    }
}

fn full(view: &View, board: &Board<'_>, seat: u32, open: &[u32]) -> NoPlace {
    let left = |room: u32| view.rooms[room as usize].capacity.map_or(u64::MAX, |c| c.saturating_sub(board.load(room)));
    let widest = open.iter().copied().max_by_key(|room| (left(*room), std::cmp::Reverse(*room))).unwrap_or(0);
    NoPlace::Full {
        weight: board.seat(seat).weight,
        count: open.len(),
        node: view.rooms[widest as usize].name.clone(),
        left: left(widest),
    }
}

fn labels(view: &View, require: &Labels) -> NoPlace {
    let nowhere =
        |(key, value): &(&String, &String)| !view.rooms.iter().any(|room| room.labels.get(*key) == Some(*value));
    let missing: Labels = require.iter().filter(nowhere).map(|(k, v)| (k.clone(), v.clone())).collect();
    let together = missing.is_empty();
    NoPlace::Labels { missing: if together { require.clone() } else { missing }, together }
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoPlace::NoNodes => f.write_str("no live node runs flows; start one with --role all or --role worker"),
            NoPlace::Labels { missing, together } => {
                let list: Vec<String> = missing.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let (of, list) = (if *together { "all of " } else { "" }, list.join(", "));
                write!(f, "no live node has {of}the label {list}")
            }
            NoPlace::Closed { nodes, count } => {
                let list: Vec<String> = nodes.iter().map(|(node, state)| format!("{node} is {state}")).collect();
                write!(f, "the nodes that would do take no flows: {}", list.join(", "))?;
                if *count > nodes.len() { write!(f, " and {} more", count - nodes.len()) } else { Ok(()) }
            }
            NoPlace::Full { weight, count, node, left } => write!(
                f,
                "its weight {weight} is more than any node that would do has left of its capacity \
                 ({count} would do; {node} has the most left: {left})"
            ),
        }
    }
}

impl fmt::Display for RoomState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RoomState::Open => "open",
            RoomState::Cordoned => "cordoned",
            RoomState::Draining => "draining",
            RoomState::Leaving => "leaving",
        })
    }
}
