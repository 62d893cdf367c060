//! What the coordinator writes, as transactions: guarded by its office and by every fact that a
//! write stands on.

use tenure_core::{
    coordinator::{Answer, Change, Ground, Office, Write},
    id::{FlowId, NodeName, SessionId},
    picture::Incumbent,
    record::Order,
};
use tenure_store::{Committed, Guard, LeaseId, Revision, Txn};

use super::{Kind, core_revision, encode, join, keys, store_revision};

/// Asks for a vacant office, for as long as the session's lease lives.
pub fn campaign(me: &NodeName, session: SessionId, lease: LeaseId) -> Txn {
    Txn::new()
        .guard(Guard::Absent(keys::OFFICE.into()))
        .guard(Guard::CreatedAt(keys::node(me), Revision(session.0)))
        .put_leased(keys::OFFICE, encode(&Incumbent { node: me.clone(), session }), lease)
}

/// Gives the office up.
pub fn resign(office: &Office) -> Txn {
    Txn::new().guard(in_office(office)).delete(keys::OFFICE)
}

fn in_office(office: &Office) -> Guard {
    Guard::CreatedAt(keys::OFFICE.into(), store_revision(office.created()))
}

/// These writes as commits, to be made in this order: one, unless their documents are so large that
/// they do not fit into one. A plan is sound in any prefix, so cutting it changes nothing.
pub fn commits(office: &Office, writes: &[Write]) -> Vec<Txn> {
    let mut commits = vec![Txn::new().guard(in_office(office))];
    for write in writes {
        let txn = one(write);
        match commits.last_mut().filter(|last| last.has_room_for(&txn)) {
            Some(last) => join(last, &txn),
            None => {
                let mut next = Txn::new().guard(in_office(office));
                join(&mut next, &txn);
                commits.push(next);
            }
        }
    }
    commits
}

fn one(write: &Write) -> Txn {
    let grounds = write.grounds.iter().fold(Txn::new(), |txn, ground| txn.guard(guard(&write.flow, ground)));
    put(grounds, write)
}

fn guard(flow: &FlowId, ground: &Ground) -> Guard {
    match ground {
        Ground::FlowAt(at) => Guard::Unchanged(keys::flow(flow), store_revision(*at)),
        Ground::AssignmentAt(at) => Guard::Unchanged(keys::assignment(flow), store_revision(*at)),
        Ground::NoAssignment => Guard::Absent(keys::assignment(flow)),
        Ground::Live(node, session) => Guard::CreatedAt(keys::node(node), Revision(session.0)),
        Ground::Over(node, session) => Guard::NotCreatedAt(keys::node(node), Revision(session.0)),
    }
}

fn put(txn: Txn, write: &Write) -> Txn {
    let id = &write.flow;
    match &write.change {
        Change::Assign { assignment, flow, former } => {
            let order = Order { assignment: assignment.clone(), flow: (**flow).clone() };
            let txn = txn
                .put(keys::assignment(id), encode(assignment))
                .put(keys::order(&assignment.node, id), encode(&order));
            match former {
                Some(former) if *former != assignment.node => txn.delete(keys::order(former, id)),
                Some(_) | None => txn,
            }
        }
        Change::Judge { verdict, released } => {
            let txn = txn.put(keys::verdict(id), encode(verdict));
            match released {
                Some(released) => {
                    txn.put(keys::assignment(id), encode(released)).delete(keys::order(&released.node, id))
                }
                None => txn,
            }
        }
        Change::Forget => txn.delete(keys::flow(id)).delete(keys::verdict(id)),
    }
}

/// How a commit ended, in the coordinator's words.
pub fn answer(committed: Committed) -> Answer {
    match committed {
        Committed::Done(at) => Answer::Done(core_revision(at)),
        Committed::Refused(guard) => match keys::parse(guard.key()) {
            Some(Kind::Office) => Answer::Deposed,
            Some(Kind::Flow(flow) | Kind::Assignment(flow) | Kind::Verdict(flow) | Kind::Order(_, flow)) => {
                Answer::Refused { by: Some(flow) }
            }
            Some(Kind::Node(_) | Kind::Cordon(_) | Kind::Cluster) | None => Answer::Refused { by: None },
        },
        Committed::Unavailable(_) => Answer::Unavailable,
        Committed::Unknown(_) => Answer::Unknown,
    }
}
