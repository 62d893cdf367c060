//! A few node processes that form one cluster on this machine.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{
    client::{Api, Cluster, Node},
    ports::Ports,
    process::{NodePlan, NodeProcess, raise_file_limit},
};

/// Nodes `n1`, `n2` and so on, each with a data directory and a log below one directory. All are
/// killed when it is dropped; the directory stays.
#[derive(Debug)]
pub struct Fleet {
    program: PathBuf,
    dir: PathBuf,
    ports: Ports,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    plan: NodePlan,
    api: Api,
    process: Option<NodeProcess>,
    frozen: bool,
}

impl Fleet {
    /// No nodes yet, in an existing directory.
    pub fn new(program: &Path, dir: &Path) -> io::Result<Fleet> {
        raise_file_limit();
        Ok(Fleet { program: program.into(), dir: dir.into(), ports: Ports::new()?, members: Vec::new() })
    }

    /// Plans one more node, which joins the first one, and gives its number. `extra` are further
    /// arguments of `tenure up`. It is not started yet.
    pub fn plan(&mut self, extra: &[&str], env: &[(String, String)]) -> io::Result<usize> {
        let name = format!("n{}", self.members.len() + 1);
        let plan = NodePlan {
            program: self.program.clone(),
            data: self.dir.join(&name),
            log: self.dir.join(format!("{name}.log")),
            name,
            api: self.ports.free()?,
            peer: self.ports.free()?,
            join: self.members.first().map(|first| first.plan.peer).into_iter().collect(),
            extra: extra.iter().map(|&argument| argument.to_owned()).collect(),
            env: env.to_vec(),
        };
        self.members.push(Member { api: Api::at(plan.api), plan, process: None, frozen: false });
        Ok(self.members.len() - 1)
    }

    /// The numbers of all nodes.
    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.members.len()
    }

    /// Where data and logs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How a node is started.
    pub fn plan_of(&self, node: usize) -> &NodePlan {
        &self.members[node].plan
    }

    /// Its name.
    pub fn name(&self, node: usize) -> &str {
        &self.members[node].plan.name
    }

    /// The node of that name.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.plan.name == name)
    }

    /// Its API.
    pub fn api(&self, node: usize) -> &Api {
        &self.members[node].api
    }

    /// Its process, if one was started and not killed.
    pub fn process(&mut self, node: usize) -> Option<&mut NodeProcess> {
        self.members[node].process.as_mut()
    }

    /// Starts a node, or starts it again with the same name, addresses and data. See
    /// [`NodePlan::start`] about the thread that calls this.
    pub fn start(&mut self, node: usize) -> io::Result<()> {
        let member = &mut self.members[node];
        member.process = None;
        member.process = Some(member.plan.start()?);
        member.frozen = false;
        Ok(())
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self, node: usize) -> io::Result<()> {
        self.members[node].process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// SIGSTOP: frozen in the middle of whatever it does.
    pub fn freeze(&mut self, node: usize) -> io::Result<()> {
        self.members[node].frozen = true;
        self.signal(node, Signal::STOP)
    }

    /// SIGCONT: goes on as if nothing had happened.
    pub fn thaw(&mut self, node: usize) -> io::Result<()> {
        self.members[node].frozen = false;
        self.signal(node, Signal::CONT)
    }

    /// Any signal.
    pub fn signal(&mut self, node: usize, signal: Signal) -> io::Result<()> {
        self.process(node).map_or(Ok(()), |process| process.signal(signal))
    }

    /// The nodes whose processes run and are not frozen.
    pub fn awake(&mut self) -> Vec<usize> {
        let awake = |member: &mut Member| {
            !member.frozen && member.process.as_mut().is_some_and(|process| matches!(process.ended(), Ok(None)))
        };
        self.members.iter_mut().enumerate().filter_map(|(node, member)| awake(member).then_some(node)).collect()
    }

    /// An error that shows the log if a node that was started, and not killed, has ended by itself.
    pub fn check(&mut self) -> io::Result<()> {
        for member in &mut self.members {
            if let Some(process) = &mut member.process
                && let Some(status) = process.ended()?
            {
                let NodePlan { name, log, .. } = &member.plan;
                let words = member.plan.last_words(10);
                let what = format!("node {name} ended by itself ({status}); its log {} ends:\n{words}", log.display());
                return Err(io::Error::other(what));
            }
        }
        Ok(())
    }

    /// Waits until a node says that it serves.
    pub async fn ready(&mut self, node: usize, within: Duration) -> io::Result<()> {
        let deadline = Instant::now() + within;
        while !self.api(node).patient(Duration::from_secs(2)).is_ready().await {
            self.check()?;
            if Instant::now() > deadline {
                let NodePlan { name, log, .. } = self.plan_of(node);
                let words = self.plan_of(node).last_words(10);
                let what =
                    format!("node {name} was not ready within {within:?}; its log {} ends:\n{words}", log.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until that many nodes vote.
    pub async fn voters(&mut self, count: usize, within: Duration) -> io::Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let seen = self.cluster().await.map_or(0, |cluster| cluster.voters().len());
            if seen == count {
                return Ok(());
            }
            self.check()?;
            if Instant::now() > deadline {
                let what = format!("{seen} of {count} nodes vote after {within:?}; logs are in {}", self.dir.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The cluster, as the first node tells it that has an answer.
    pub async fn cluster(&mut self) -> Option<Cluster> {
        for node in self.awake() {
            if let Ok(cluster) = self.api(node).patient(Duration::from_secs(2)).cluster().await {
                return Some(cluster);
            }
        }
        None
    }

    /// The nodes, as the first node tells it that has an answer.
    pub async fn nodes(&mut self) -> Option<Vec<Node>> {
        for node in self.awake() {
            if let Ok(nodes) = self.api(node).patient(Duration::from_secs(2)).nodes().await {
                return Some(nodes);
            }
        }
        None
    }

    /// Ends all nodes: SIGTERM, after half the time another one (nobody is left to hand flows to,
    /// so they need not try for long), and SIGKILL for who has not ended `within` the time.
    pub async fn end(&mut self, within: Duration) -> io::Result<()> {
        for node in self.all() {
            self.thaw(node)?;
        }
        for _ in 0..2 {
            let deadline = Instant::now() + within / 2;
            for node in self.all() {
                self.signal(node, Signal::TERM)?;
            }
            for node in self.all() {
                if let Some(process) = self.process(node) {
                    process.end_within(deadline.saturating_duration_since(Instant::now())).await?;
                }
            }
        }
        self.all().try_for_each(|node| self.kill(node))
    }
}
