//! First chaos, then peace: whatever nodes, watches, commits and people do, nothing forbidden is
//! written (the world checks every write); and when all is well again, every flow is soon where it
//! should be and nothing more is written.

use crate::world::World;
use std::collections::BTreeSet;

use tenure_core::{
    id::{FlowId, NodeName, SessionId},
    moment::Dice,
    record::{Phase, Purpose, Why},
    situation::{Records, Situation},
};

const NODES: u64 = 4;
const FLOWS: u64 = 12;
const SEEDS: u64 = 400;
const DEEDS: usize = 120;
/// The last node takes no more than so many.
const SMALL: u64 = 2;

struct Episode {
    world: World,
    dice: Dice,
    frozen: BTreeSet<String>,
    log: Vec<String>,
}

impl Episode {
    fn begin(seed: u64) -> Episode {
        let mut episode =
            Episode { world: World::new(), dice: Dice::from_seed(seed), frozen: BTreeSet::new(), log: Vec::new() };
        for n in 1..=NODES {
            episode.command(&comes(&format!("n{n}")));
            episode.command(&format!("coordinator n{n}"));
        }
        episode
    }

    fn command(&mut self, command: &str) -> usize {
        self.log.push(format!("> {command}"));
        let said = self.world.command(command);
        self.log.extend(said.iter().map(|line| format!("  {line}")));
        said.len()
    }

    fn some_node(&mut self) -> String {
        format!("n{}", 1 + self.dice.below(NODES))
    }

    fn is_live(&self, node: &str) -> bool {
        self.world.store().session(&NodeName::new(node).unwrap()).is_some()
    }

    fn deed(&mut self) {
        let node = self.some_node();
        let flow = format!("f{}", 1 + self.dice.below(FLOWS));
        let there = self.world.store().flows.get(&FlowId::new(&flow).unwrap()).map(|f| f.value.forget);
        let (live, behind) = (self.is_live(&node), self.world.is_behind(&node));
        let command = match (self.dice.below(22), there) {
            (0, _) if live => format!("expire {node}"),
            (0 | 1, _) if !live => comes(&node),
            (2, _) => {
                self.frozen.insert(node.clone());
                format!("freeze {node}")
            }
            (3, _) => {
                self.frozen.remove(&node);
                format!("thaw {node}")
            }
            (4, _) if !behind => format!("lag {node}"),
            (5, _) if behind => format!("catch-up {node}"),
            (6, _) => format!("doubt {node}"),
            (7, _) => format!("trust {node}"),
            (8, _) => format!("drain {node}"),
            (9, _) => format!("cordon {node}"),
            (10, _) => format!("uncordon {node}"),
            (11, _) => "next-commit answer-lost".to_owned(),
            (12, _) => "next-commit lost".to_owned(),
            (13, Some(false)) => format!("suspend {flow}"),
            (14, Some(false)) => format!("resume {flow}"),
            (15, Some(false)) => format!("terminate {flow}"),
            (16, Some(false)) => format!("forget {flow}"),
            (17, Some(false)) => format!("move {flow} {node}"),
            (18, Some(false)) => format!("restart {flow}"),
            (13..=18, None) if flow.ends_with('1') => format!("flow {flow} strict"),
            (13..=18, None) if flow.ends_with('2') => format!("flow {flow} one-reader"),
            (13..=18, None) => format!("flow {flow}"),
            (20, _) if !self.frozen.contains(&node) => format!("reread {node}"),
            (19, _) => format!("wait {}", self.dice.below(4000)),
            (_, _) => "holders".to_owned(),
        };
        self.command(&command);
    }

    /// Everybody is well, and everything that was said arrives.
    fn peace(&mut self) {
        for n in 1..=NODES {
            let node = format!("n{n}");
            self.command(&format!("thaw {node}"));
            if !self.is_live(&node) {
                self.command(&comes(&node));
            }
            if self.world.is_behind(&node) {
                self.command(&format!("catch-up {node}"));
            }
            self.command(&format!("trust {node}"));
            self.command(&format!("uncordon {node}"));
        }
        // What is left of the mishaps, and one round for each step that a flow may have before it.
        for _ in 0..12 {
            self.command("wait 1100");
            self.command("holders");
        }
    }

    fn check_peace(&mut self) {
        let quiet = self.command("wait 12000") + self.command("holders");
        assert_eq!(quiet, 0, "something is still written at rest");
        let store = self.world.store();
        let mut loads = vec![0; NODES as usize];
        for records in Records::all(store) {
            let situation = records.situation(store);
            let settled = matches!(situation, Situation::Running { stale: false, .. } | Situation::Stopped);
            assert!(settled, "{} is {situation:?}", records.id);
            if let (Situation::Running { node, .. }, Some(a)) = (situation, records.assignment) {
                assert_eq!((&a.value.phase, a.value.purpose), (&Phase::Held, Purpose::Run));
                assert_eq!(store.session(&node), Some::<SessionId>(a.value.session));
                // What a person placed stays where it is; the rest makes up for it if it can.
                let number: usize = node.as_str()[1..].parse().unwrap();
                loads[number - 1] += 1;
            }
        }
        let asked = store.assignments.values().any(|a| a.value.why == Why::Asked);
        // The others make up for a node that is full.
        let small = loads.pop().filter(|small| *small < SMALL);
        loads.extend(small);
        let differ = loads.iter().max().unwrap() - loads.iter().min().unwrap();
        assert!(asked || differ <= 1, "uneven at rest: {loads:?}");
    }
}

fn comes(node: &str) -> String {
    if node == format!("n{NODES}") { format!("node {node} capacity={SMALL}") } else { format!("node {node}") }
}

#[test]
fn after_chaos_every_flow_is_where_it_should_be() {
    for seed in 0..SEEDS {
        let mut episode = Episode::begin(seed);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..DEEDS).for_each(|_| episode.deed());
            episode.peace();
            episode.check_peace();
        }));
        if let Err(why) = told {
            let tail = episode.log.len().saturating_sub(80);
            eprintln!("seed {seed} ends with\n{}", episode.log[tail..].join("\n"));
            std::panic::resume_unwind(why);
        }
    }
}
