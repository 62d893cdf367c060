//! A connection for questions and answers: many under way at once, each with a number.
//!
//! [`Line`] is the asking end. It connects when it is first needed, and again (not too often) when
//! the connection broke. A caller may give up at any moment without harm to the connection. A
//! connection on which an answer is due and nothing at all has been heard for a while is dead and
//! is dropped: TCP alone would keep it for minutes. [`serve`] is the answering end; while it works
//! on something it gives signs of life.

use std::{
    collections::HashMap,
    future::Future,
    io, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    frame::{self, FRAME_MAX},
    hello::{Channel, Cluster, Dialer},
    transport::Stream,
};

const QUEUE: usize = 1024;
/// So many questions of one connection are worked on at once.
const AT_ONCE: usize = 1024;
/// The answering end says so often that it is alive, while an answer is due.
pub(crate) const SIGN_OF_LIFE: Duration = Duration::from_millis(200);
const RETRY_FIRST: Duration = Duration::from_millis(25);
const RETRY_LONGEST: Duration = Duration::from_millis(400);

/// What travels: some answers are too long for one message.
pub(crate) trait Body: Sized {
    /// The messages it travels in; all but the last are pieces.
    fn split(self) -> Vec<Self> {
        vec![self]
    }
    /// Whether more follows.
    fn is_piece(&self) -> bool {
        false
    }
    /// Undoes [`Body::split`].
    fn join(pieces: Vec<Self>, last: Self) -> Self {
        drop(pieces);
        last
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Numbered<T> {
    pub(crate) number: u64,
    pub(crate) body: T,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NoAnswer {
    /// The question never left: nothing can have happened.
    NotSent(String),
    /// It may have arrived: anything can have happened.
    Lost(String),
}

/// The asking end. Clones share the connection.
pub(crate) struct Line<Q, A>(Arc<Inner<Q, A>>);

impl<Q, A> Clone for Line<Q, A> {
    fn clone(&self) -> Self {
        Line(Arc::clone(&self.0))
    }
}

struct Inner<Q, A> {
    dialer: Dialer,
    addr: Box<dyn Fn() -> String + Send + Sync>,
    cluster: Cluster,
    channel: Channel,
    /// With an answer due, silence for so long means that the connection is dead.
    silence: Duration,
    link: Mutex<Link<Q, A>>,
}

enum Link<Q, A> {
    Down { until: Option<Instant>, pause: Duration, why: String },
    Dialling(watch::Receiver<bool>),
    Up(mpsc::Sender<Question<Q, A>>),
}

struct Question<Q, A> {
    body: Q,
    reply: oneshot::Sender<A>,
}

struct Due<A> {
    reply: oneshot::Sender<A>,
    pieces: Vec<A>,
}

impl<Q, A> Line<Q, A>
where
    Q: Serialize + Send + 'static,
    A: DeserializeOwned + Body + Send + 'static,
{
    /// A line to whatever `addr` says at the time of connecting.
    pub(crate) fn new(
        dialer: Dialer,
        addr: impl Fn() -> String + Send + Sync + 'static,
        cluster: Cluster,
        channel: Channel,
        silence: Duration,
    ) -> Line<Q, A> {
        let link = Link::Down { until: None, pause: RETRY_FIRST, why: String::new() };
        let addr = Box::new(addr);
        Line(Arc::new(Inner { dialer, addr, cluster, channel, silence, link: Mutex::new(link) }))
    }

    /// Asks, and waits for the answer for at most `deadline`.
    pub(crate) async fn call(&self, body: Q, deadline: Duration) -> Result<A, NoAnswer> {
        let until = Instant::now() + deadline;
        let Ok(link) = tokio::time::timeout_at(until, self.up()).await else {
            return Err(NoAnswer::NotSent(format!("{} does not answer", (self.0.addr)())));
        };
        let questions = link.map_err(NoAnswer::NotSent)?;
        let (reply, answer) = oneshot::channel();
        match tokio::time::timeout_at(until, questions.send(Question { body, reply })).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(NoAnswer::NotSent("the connection had just ended".to_owned())),
            Err(_) => return Err(NoAnswer::NotSent("the connection is congested".to_owned())),
        }
        match tokio::time::timeout_at(until, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(NoAnswer::Lost("the connection broke before the answer came".to_owned())),
            Err(_) => Err(NoAnswer::Lost(format!("no answer within {deadline:?}"))),
        }
    }

    /// The connection, made if need be. Giving up waiting does not stop the making.
    async fn up(&self) -> Result<mpsc::Sender<Question<Q, A>>, String> {
        loop {
            let mut dialling = match self.look() {
                Ok(questions) => return Ok(questions),
                Err(Some(dialling)) => dialling,
                Err(None) => return Err(self.why()),
            };
            // The sender sends once or goes: both end the wait.
            if dialling.wait_for(|over| *over).await.is_err() {
                continue;
            }
            match self.look() {
                Ok(questions) => return Ok(questions),
                Err(_) => return Err(self.why()),
            }
        }
    }

    /// The connection, or the attempt under way, or nothing while it is too early for another one.
    fn look(&self) -> Result<mpsc::Sender<Question<Q, A>>, Option<watch::Receiver<bool>>> {
        let mut link = self.0.link();
        let pause = match &*link {
            Link::Up(questions) if !questions.is_closed() => return Ok(questions.clone()),
            Link::Up(_) => RETRY_FIRST,
            Link::Dialling(over) => return Err(Some(over.clone())),
            Link::Down { until: Some(until), .. } if Instant::now() < *until => return Err(None),
            Link::Down { pause, .. } => *pause,
        };
        let (done, over) = watch::channel(false);
        *link = Link::Dialling(over.clone());
        self.0.dialer.runtime.spawn(Arc::clone(&self.0).dial(pause, done));
        Err(Some(over))
    }

    fn why(&self) -> String {
        match &*self.0.link() {
            Link::Down { why, .. } => why.clone(),
            Link::Dialling(_) | Link::Up(_) => "the connection had just ended".to_owned(),
        }
    }
}

impl<Q, A> Inner<Q, A>
where
    Q: Serialize + Send + 'static,
    A: DeserializeOwned + Body + Send + 'static,
{
    fn link(&self) -> MutexGuard<'_, Link<Q, A>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dial(self: Arc<Self>, pause: Duration, done: watch::Sender<bool>) {
        let addr = (self.addr)();
        let dialled = self.dialer.dial(&addr, &self.cluster, self.channel).await;
        *self.link() = match dialled {
            Ok(stream) => {
                let (ask, questions) = mpsc::channel(QUEUE);
                tokio::spawn(converse(stream, questions, self.silence));
                Link::Up(ask)
            }
            Err(e) => Link::Down {
                until: Some(Instant::now() + pause),
                pause: (pause * 2).min(RETRY_LONGEST),
                why: format!("{addr}: {e}"),
            },
        };
        done.send_replace(true);
    }
}

/// What both halves of a connection know.
struct Table<A> {
    due: Mutex<HashMap<u64, Due<A>>>,
    heard: Mutex<Instant>,
    asked: Notify,
}

/// Runs a connection until it breaks or nobody asks any more; then what is due is lost.
async fn converse<Q, A>(stream: Box<dyn Stream>, questions: mpsc::Receiver<Question<Q, A>>, silence: Duration)
where
    Q: Serialize,
    A: DeserializeOwned + Body,
{
    let (from, to) = tokio::io::split(stream);
    let table = Table { due: Mutex::default(), heard: Mutex::new(Instant::now()), asked: Notify::new() };
    let ended = tokio::select! {
        ended = table.hear(from) => ended,
        ended = table.ask(to, questions) => ended,
        () = table.doubt(silence) => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(e) = ended {
        tracing::debug!("a connection ended: {e}");
    }
}

impl<A: DeserializeOwned + Body> Table<A> {
    fn due(&self) -> MutexGuard<'_, HashMap<u64, Due<A>>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> MutexGuard<'_, Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn hear(&self, mut from: ReadHalf<Box<dyn Stream>>) -> io::Result<()> {
        while let Some(message) = frame::read(&mut from, FRAME_MAX).await? {
            *self.heard() = Instant::now();
            if !message.is_empty() {
                self.take(frame::decode(&message)?);
            }
        }
        Ok(())
    }

    fn take(&self, Numbered { number, body }: Numbered<A>) {
        let mut due = self.due();
        if body.is_piece() {
            if let Some(waiting) = due.get_mut(&number) {
                waiting.pieces.push(body);
            }
            return;
        }
        if let Some(Due { reply, pieces }) = due.remove(&number) {
            // Whoever asked may have given up.
            drop(reply.send(A::join(pieces, body)));
        }
    }

    async fn ask<Q: Serialize>(
        &self,
        mut to: WriteHalf<Box<dyn Stream>>,
        mut questions: mpsc::Receiver<Question<Q, A>>,
    ) -> io::Result<()> {
        let mut number = 0;
        while let Some(Question { body, reply }) = questions.recv().await {
            number += 1;
            let message = match frame::encode(&Numbered { number, body }) {
                Ok(message) => message,
                Err(e) => {
                    tracing::warn!("a question could not be sent: {e}");
                    continue;
                }
            };
            self.expect(number, reply);
            to.write_all(&message).await?;
            to.flush().await?;
        }
        Ok(())
    }

    fn expect(&self, number: u64, reply: oneshot::Sender<A>) {
        let mut due = self.due();
        if due.is_empty() {
            // Silence counts from the first question after a rest.
            *self.heard() = Instant::now();
        }
        due.insert(number, Due { reply, pieces: Vec::new() });
        self.asked.notify_one();
    }

    /// Ends when an answer is due and nothing has been heard for too long.
    async fn doubt(&self, silence: Duration) {
        loop {
            if self.due().is_empty() {
                self.asked.notified().await;
                continue;
            }
            let until = *self.heard() + silence;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// How many questions a connection works on; the sender sleeps while there are none.
#[derive(Default)]
struct Work {
    under_way: AtomicUsize,
    begun: Notify,
}

/// Counts a question as long as it is worked on.
struct AtWork(Arc<Work>);

impl AtWork {
    fn start(work: &Arc<Work>) -> AtWork {
        work.under_way.fetch_add(1, Ordering::Relaxed);
        work.begun.notify_one();
        AtWork(Arc::clone(work))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Work {
    /// Ends when it is time for a sign of life.
    async fn sign_of_life(&self) {
        while self.under_way.load(Ordering::Relaxed) == 0 {
            self.begun.notified().await;
        }
        tokio::time::sleep(SIGN_OF_LIFE).await;
    }
}

/// Answers the questions of one connection until it ends.
pub(crate) async fn serve<Q, A, F>(stream: Box<dyn Stream>, answer: impl Fn(Q) -> F) -> io::Result<()>
where
    Q: DeserializeOwned,
    A: Serialize + Body + Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    let (from, to) = tokio::io::split(stream);
    let (replies, outbox) = mpsc::channel(QUEUE);
    let work = Arc::new(Work::default());
    tokio::select! {
        ended = take_questions(from, replies, Arc::clone(&work), answer) => ended,
        ended = send_answers(to, outbox, &work) => ended,
    }
}

async fn take_questions<Q, A, F>(
    mut from: ReadHalf<Box<dyn Stream>>,
    replies: mpsc::Sender<Numbered<A>>,
    work: Arc<Work>,
    answer: impl Fn(Q) -> F,
) -> io::Result<()>
where
    Q: DeserializeOwned,
    A: Serialize + Body + Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(message) = frame::read(&mut from, FRAME_MAX).await? {
        let Numbered { number, body } = frame::decode(&message)?;
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
        let (replies, at_work) = (replies.clone(), AtWork::start(&work));
        let answer = answer(body);
        tokio::spawn(async move {
            for body in answer.await.split() {
                if replies.send(Numbered { number, body }).await.is_err() {
                    break;
                }
            }
            drop((at_work, slot));
        });
    }
    Ok(())
}

async fn send_answers<A: Serialize>(
    mut to: WriteHalf<Box<dyn Stream>>,
    mut outbox: mpsc::Receiver<Numbered<A>>,
    work: &Work,
) -> io::Result<()> {
    loop {
        let message = tokio::select! {
            answer = outbox.recv() => match answer {
                Some(answer) => frame::encode(&answer)?,
                None => return Ok(()),
            },
            () = work.sign_of_life() => frame::wrap(&[])?,
        };
        to.write_all(&message).await?;
        to.flush().await?;
    }
}

/// Lines to many addresses, made on first use.
pub(crate) struct Lines<Q, A> {
    dialer: Dialer,
    cluster: Cluster,
    channel: Channel,
    silence: Duration,
    by_addr: Mutex<HashMap<String, Line<Q, A>>>,
}

impl<Q, A> Lines<Q, A>
where
    Q: Serialize + Send + 'static,
    A: DeserializeOwned + Body + Send + 'static,
{
    pub(crate) fn new(dialer: Dialer, cluster: Cluster, channel: Channel, silence: Duration) -> Lines<Q, A> {
        Lines { dialer, cluster, channel, silence, by_addr: Mutex::default() }
    }

    pub(crate) fn to(&self, addr: &str) -> Line<Q, A> {
        let mut lines = self.by_addr.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(addr) {
            return line.clone();
        }
        let fixed = addr.to_owned();
        let line =
            Line::new(self.dialer.clone(), move || fixed.clone(), self.cluster.clone(), self.channel, self.silence);
        lines.insert(addr.to_owned(), line.clone());
        line
    }

    /// Drops the lines to addresses that are no longer wanted.
    pub(crate) fn keep(&self, wanted: impl Fn(&str) -> bool) {
        let mut lines = self.by_addr.lock().unwrap_or_else(PoisonError::into_inner);
        let all = mem::take(&mut *lines);
        *lines = all.into_iter().filter(|(addr, _)| wanted(addr)).collect();
    }
}
