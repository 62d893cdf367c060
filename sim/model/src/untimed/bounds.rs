//! How much may happen, so that there is a last state.

/// One scope of the model, at the two sizes that it is explored at.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// What it is called.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Small enough for every change.
    pub small: Bounds,
    /// For when there is time.
    pub large: Bounds,
}

/// All scopes. Everything at once would have no last state that anybody lives to see; what does not
/// meet in one of these is listed in `docs/model.md`.
pub const SCOPES: [Scope; 6] = [
    Scope {
        name: "takeover",
        about: "nodes are lost while their writes are under way",
        small: Bounds::TAKEOVER,
        large: Bounds { epochs: 3, sessions: 4, crashes: 1, ..Bounds::TAKEOVER },
    },
    Scope {
        name: "restart",
        about: "a process dies, and another one comes under its name",
        small: Bounds::RESTART,
        large: Bounds { attempts: 1, crashes: 2, ..Bounds::RESTART },
    },
    Scope {
        name: "offices",
        about: "coordinators depose each other, and take nodes for lost that are not",
        small: Bounds::OFFICES,
        large: Bounds { epochs: 3, sessions: 3, offices: 3, ..Bounds::OFFICES },
    },
    Scope {
        name: "handover",
        about: "a planned move",
        small: Bounds::HANDOVER,
        large: Bounds { epochs: 3, commits: 2, ..Bounds::HANDOVER },
    },
    Scope {
        name: "stop",
        about: "a stop, which may be taken back",
        small: Bounds::STOP,
        large: Bounds { epochs: 3, commits: 2, ..Bounds::STOP },
    },
    Scope {
        name: "restore",
        about: "the store goes back in time; at the large size, a stop meets that",
        small: Bounds::RESTORE,
        large: Bounds::RESTORED_STOP,
    },
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
    /// Nodes are lost while their writes are under way.
    pub const TAKEOVER: Bounds = Bounds { attempts: 1, sessions: 3, ..Bounds::NOTHING };
    /// A process dies, and another one comes under its name.
    pub const RESTART: Bounds = Bounds { sessions: 3, crashes: 1, ..Bounds::NOTHING };
    /// Coordinators depose each other, and take nodes for lost that are not.
    pub const OFFICES: Bounds = Bounds { commits: 1, offices: 2, suspicions: 1, ..Bounds::NOTHING };
    /// A planned move that a person asks for.
    pub const HANDOVER: Bounds = Bounds { commits: 1, sessions: 3, moves: 1, ..Bounds::NOTHING };
    /// A stop, which may be taken back.
    pub const STOP: Bounds = Bounds { commits: 1, attempts: 1, stops: 1, resumes: 1, ..Bounds::NOTHING };
    /// The store goes back in time.
    pub const RESTORE: Bounds = Bounds { sessions: 3, offices: 2, commits: 1, restores: 1, ..Bounds::NOTHING };
    /// It does so while the flow is being stopped.
    pub const RESTORED_STOP: Bounds = Bounds { stops: 1, ..Bounds::RESTORE };
}
