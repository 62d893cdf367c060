//! Visiting every state, and saying what was found.

use std::{
    fmt::{self, Display},
    hash::Hash,
    time::{Duration, Instant},
};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// A model whose stories can be told.
pub trait Story: Model + Clone + Send + Sync + 'static
where
    Self::State: Hash + Send + Sync + Clone + PartialEq + fmt::Debug + 'static,
    Self::Action: Clone + PartialEq + Display + Send + Sync + 'static,
{
    /// One line per step; with each step comes the state before it.
    fn tell(&self, steps: &[(Self::State, Self::Action)]) -> Vec<String> {
        steps.iter().enumerate().map(|(at, (_, step))| format!("{:>2}. {step}", at + 1)).collect()
    }
}

/// What came of visiting the states of a model.
#[derive(Clone, Debug)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Steps that were looked at.
    pub steps: usize,
    /// Steps from the first state to the farthest one.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// The claims that hold in every state.
    pub hold: Vec<&'static str>,
    /// What was to be seen, and was.
    pub seen: Vec<&'static str>,
    /// What was to be seen, and was not.
    pub unseen: Vec<&'static str>,
    /// Claims that do not hold, each with the story of how it was broken.
    pub broken: Vec<(&'static str, Vec<String>)>,
    /// How many steps each of these stories has.
    lengths: Vec<usize>,
}

/// Visits every state, on as many threads as there are processors.
pub fn all<M>(model: M) -> Found
where
    M: Story,
    M::State: Hash + Send + Sync + Clone + PartialEq + fmt::Debug + 'static,
    M::Action: Clone + PartialEq + Display + Send + Sync + 'static,
{
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    run(model, threads, HasDiscoveries::All, None)
}

/// Visits states in order of their distance until a claim is broken, and tells a shortest story of
/// it, always the same one.
pub fn until_broken<M>(model: M) -> Found
where
    M: Story,
    M::State: Hash + Send + Sync + Clone + PartialEq + fmt::Debug + 'static,
    M::Action: Clone + PartialEq + Display + Send + Sync + 'static,
{
    shortest(&model, &HasDiscoveries::AnyFailures)
}

/// As [`until_broken`], for one claim, whatever else is broken on the way.
pub fn until_breaks<M>(model: M, claim: &'static str) -> Found
where
    M: Story,
    M::State: Hash + Send + Sync + Clone + PartialEq + fmt::Debug + 'static,
    M::Action: Clone + PartialEq + Display + Send + Sync + 'static,
{
    let mut found = shortest(&model, &HasDiscoveries::AnyOf([claim].into()));
    found.broken.retain(|(broken, _)| *broken == claim);
    found
}

/// The explorer keeps the last story that it came upon, not the first: so it is asked for shorter
/// ones until there is none.
fn shortest<M>(model: &M, until: &HasDiscoveries) -> Found
where
    M: Story,
    M::State: Hash + Send + Sync + Clone + PartialEq + fmt::Debug + 'static,
    M::Action: Clone + PartialEq + Display + Send + Sync + 'static,
{
    let mut found = run(model.clone(), 1, until.clone(), None);
    while let Some(steps) = found.story_of(until) {
        let shorter = run(model.clone(), 1, until.clone(), Some(steps));
        if shorter.story_of(until).is_none() {
            break;
        }
        found = shorter;
    }
    found
}

/// `fewer_than`: how many steps are too many.
fn run<M>(model: M, threads: usize, until: HasDiscoveries, fewer_than: Option<usize>) -> Found
where
    M: Story,
    M::State: Hash + Send + Sync + Clone + PartialEq + fmt::Debug + 'static,
    M::Action: Clone + PartialEq + Display + Send + Sync + 'static,
{
    let began = Instant::now();
    let mut builder = model.checker().threads(threads).finish_when(until);
    if let Some(steps) = fewer_than {
        // The explorer counts the states on the way, the first one among them.
        builder = builder.target_max_depth(steps + 1);
    }
    let checker = builder.spawn_bfs().join();
    let mut found = Found {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        hold: Vec::new(),
        seen: Vec::new(),
        unseen: Vec::new(),
        broken: Vec::new(),
        lengths: Vec::new(),
    };
    let discoveries = checker.discoveries();
    for property in checker.model().properties() {
        match (property.expectation, discoveries.get(property.name)) {
            (Expectation::Always, Some(path)) => {
                let steps = path.clone().into_vec().into_iter();
                let steps: Vec<_> = steps.filter_map(|(state, step)| Some((state, step?))).collect();
                found.broken.push((property.name, checker.model().tell(&steps)));
                found.lengths.push(steps.len());
            }
            (Expectation::Always, None) => found.hold.push(property.name),
            (Expectation::Sometimes, Some(_)) => found.seen.push(property.name),
            (Expectation::Sometimes | Expectation::Eventually, None) => found.unseen.push(property.name),
            (Expectation::Eventually, Some(_)) => unreachable!("the models claim nothing of the kind"),
        }
    }
    found
}

impl Found {
    /// How many steps a story has that was asked for.
    fn story_of(&self, until: &HasDiscoveries) -> Option<usize> {
        let asked = |claim: &str| match until {
            HasDiscoveries::AnyOf(claims) => claims.contains(claim),
            _ => true,
        };
        let stories = self.broken.iter().zip(&self.lengths);
        stories.filter(|((claim, _), _)| asked(claim)).map(|(_, steps)| *steps).min()
    }

    /// True if every claim holds and everything was seen that was to be.
    pub fn is_good(&self) -> bool {
        self.broken.is_empty() && self.unseen.is_empty()
    }
}

impl Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { states, steps, depth, took, .. } = self;
        writeln!(f, "{states} states, {steps} steps, depth {depth}, {:.1} s", took.as_secs_f64())?;
        for name in &self.hold {
            writeln!(f, "  holds    {name}")?;
        }
        for name in &self.seen {
            writeln!(f, "  seen     {name}")?;
        }
        for name in &self.unseen {
            writeln!(f, "  NOT SEEN {name}")?;
        }
        for (name, story) in &self.broken {
            writeln!(f, "  BROKEN   {name}")?;
            story.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        Ok(())
    }
}
