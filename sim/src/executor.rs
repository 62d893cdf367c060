//! The event heap: tasks of many processes on one thread, and true time, which moves from one event
//! to the next.
//!
//! A process can be frozen (its tasks are not polled, though what they wait for happens) and killed
//! (its tasks are dropped where they stand).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::future::BoxFuture;

use crate::time::Time;

/// A simulated process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pid(pub usize);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// Nobody's: tasks of the world outside.
pub const OUTSIDE: Pid = Pid(0);

type Deed = Box<dyn FnOnce() + Send>;

/// See the module's head.
pub struct Executor(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    now: Time,
    order: u64,
    due: BinaryHeap<Reverse<Due>>,
    ready: VecDeque<Arc<Task>>,
    processes: Vec<Process>,
    polls: u64,
}

#[derive(Default)]
struct Process {
    dead: bool,
    frozen: bool,
    parked: Vec<Arc<Task>>,
    tasks: Vec<Weak<Task>>,
}

/// What happens at a time; what was put in first happens first.
struct Due {
    at: Time,
    order: u64,
    what: What,
}

enum What {
    Wake(Arc<Alarm>),
    Do(Deed),
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct Task {
    of: Pid,
    executor: Weak<Executor>,
    queued: AtomicBool,
    /// None while it is polled, and once it is over.
    body: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed)
            && let Some(executor) = self.executor.upgrade()
        {
            executor.inner().ready.push_back(self);
        }
    }
}

#[derive(Default)]
struct Alarm {
    rang: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// Ends at a time.
pub struct Sleep(Arc<Alarm>);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.rang.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *lock(&self.0.waker) = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        drop(lock(&self.0.waker).take());
    }
}

/// One thread: nothing can have been left half done under a poisoned lock that matters afterwards.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Executor {
    /// At the beginning of time, with nobody but [`OUTSIDE`].
    pub fn new() -> Arc<Executor> {
        let inner = Inner { processes: vec![Process::default()], ..Inner::default() };
        Arc::new(Executor(Mutex::new(inner)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }

    /// True time.
    pub fn now(&self) -> Time {
        self.inner().now
    }

    /// How many times a task was polled so far.
    pub fn polls(&self) -> u64 {
        self.inner().polls
    }

    /// A new process.
    pub fn process(&self) -> Pid {
        let mut inner = self.inner();
        inner.processes.push(Process::default());
        Pid(inner.processes.len() - 1)
    }

    /// Starts a task of a process; a dead one's are dropped.
    pub fn spawn(self: &Arc<Self>, of: Pid, body: BoxFuture<'static, ()>) {
        let executor = Arc::downgrade(self);
        let task = Arc::new(Task { of, executor, queued: AtomicBool::new(true), body: Mutex::new(Some(body)) });
        let mut inner = self.inner();
        let process = &mut inner.processes[of.0];
        if process.dead {
            drop(inner);
            return;
        }
        if process.tasks.len() == process.tasks.capacity() {
            process.tasks.retain(|task| task.strong_count() > 0);
        }
        process.tasks.push(Arc::downgrade(&task));
        inner.ready.push_back(task);
    }

    /// Ends that much later in truth.
    pub fn sleep(&self, span: Duration) -> Sleep {
        let alarm = Arc::new(Alarm::default());
        self.put(span, What::Wake(Arc::clone(&alarm)));
        Sleep(alarm)
    }

    /// Does something that much later in truth, whatever becomes of who asked for it.
    pub fn after(&self, span: Duration, deed: impl FnOnce() + Send + 'static) {
        self.put(span, What::Do(Box::new(deed)));
    }

    fn put(&self, span: Duration, what: What) {
        let mut inner = self.inner();
        inner.order += 1;
        let due = Due { at: inner.now.after(span), order: inner.order, what };
        inner.due.push(Reverse(due));
    }

    /// True while the process runs or is frozen.
    pub fn is_alive(&self, of: Pid) -> bool {
        !self.inner().processes[of.0].dead
    }

    /// True while the process is frozen.
    pub fn is_frozen(&self, of: Pid) -> bool {
        self.inner().processes[of.0].frozen
    }

    /// Polls none of the process's tasks until it is thawed.
    pub fn freeze(&self, of: Pid) {
        self.inner().processes[of.0].frozen = true;
    }

    /// The process goes on.
    pub fn thaw(&self, of: Pid) {
        let mut inner = self.inner();
        let process = &mut inner.processes[of.0];
        process.frozen = false;
        let parked = std::mem::take(&mut process.parked);
        inner.ready.extend(parked);
    }

    /// Drops all tasks of the process where they stand.
    pub fn kill(&self, of: Pid) {
        let tasks = {
            let mut inner = self.inner();
            let process = &mut inner.processes[of.0];
            process.dead = true;
            process.parked.clear();
            std::mem::take(&mut process.tasks)
        };
        // A task's end wakes others.
        for task in tasks.iter().filter_map(Weak::upgrade) {
            let body = lock(&task.body).take();
            drop(body);
        }
    }

    /// The end of the world: whatever still waits is dropped. What waits knows the heap, and the heap
    /// what waits; without this nothing of a run would ever be freed.
    pub fn end(&self) {
        let count = self.inner().processes.len();
        (0..count).for_each(|process| self.kill(Pid(process)));
        loop {
            // What is dropped may put something in its place.
            let (due, ready) = {
                let mut inner = self.inner();
                (std::mem::take(&mut inner.due), std::mem::take(&mut inner.ready))
            };
            if due.is_empty() && ready.is_empty() {
                return;
            }
            drop((due, ready));
        }
    }

    /// Lets everything happen that is due until then, or until `over` says so after an event.
    pub fn run_until(&self, end: Time, mut over: impl FnMut() -> bool) {
        loop {
            while let Some(task) = self.next_ready() {
                self.poll(task);
            }
            if over() {
                return;
            }
            let due = {
                let mut inner = self.inner();
                match inner.due.peek() {
                    Some(Reverse(due)) if due.at <= end => {
                        inner.now = due.at;
                        inner.due.pop().map(|Reverse(due)| due.what)
                    }
                    Some(_) | None => {
                        inner.now = end;
                        None
                    }
                }
            };
            match due {
                Some(What::Wake(alarm)) => {
                    alarm.rang.store(true, Ordering::Relaxed);
                    let waker = lock(&alarm.waker).take();
                    waker.into_iter().for_each(Waker::wake);
                }
                Some(What::Do(deed)) => deed(),
                None => return,
            }
        }
    }

    fn next_ready(&self) -> Option<Arc<Task>> {
        let mut inner = self.inner();
        while let Some(task) = inner.ready.pop_front() {
            let process = &mut inner.processes[task.of.0];
            if process.frozen {
                process.parked.push(task);
            } else if !process.dead {
                inner.polls += 1;
                return Some(task);
            }
        }
        None
    }

    fn poll(&self, task: Arc<Task>) {
        task.queued.store(false, Ordering::Relaxed);
        let Some(mut body) = lock(&task.body).take() else { return };
        let waker = Waker::from(Arc::clone(&task));
        if body.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() && self.is_alive(task.of) {
            *lock(&task.body) = Some(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noting(
        executor: &Arc<Executor>,
        of: Pid,
        notes: &Arc<Mutex<Vec<(u64, &'static str)>>>,
        word: &'static str,
        after: Duration,
    ) {
        let (notes, sleep, this) = (Arc::clone(notes), executor.sleep(after), Arc::downgrade(executor));
        executor.spawn(
            of,
            Box::pin(async move {
                sleep.await;
                let now = this.upgrade().unwrap().now();
                lock(&notes).push((now.0, word));
            }),
        );
    }

    #[test]
    fn a_frozen_process_goes_on_when_it_is_thawed_and_a_killed_one_never() {
        let executor = Executor::new();
        let notes = Arc::default();
        let [frozen, killed, free] = std::array::from_fn(|_| executor.process());
        for (of, word) in [(frozen, "frozen"), (killed, "killed"), (free, "free")] {
            noting(&executor, of, &notes, word, Duration::from_micros(10));
        }
        executor.freeze(frozen);
        executor.kill(killed);
        executor.run_until(Time(50), || false);
        executor.thaw(frozen);
        executor.run_until(Time(60), || false);
        assert_eq!(*lock(&notes), [(10, "free"), (50, "frozen")]);
    }

    #[test]
    fn what_is_due_at_one_time_happens_in_the_order_it_was_put_in() {
        let executor = Executor::new();
        let notes: Arc<Mutex<Vec<u32>>> = Arc::default();
        for n in 0..5 {
            let notes = Arc::clone(&notes);
            executor.after(Duration::from_micros(7), move || lock(&notes).push(n));
        }
        executor.run_until(Time(7), || false);
        assert_eq!(*lock(&notes), [0, 1, 2, 3, 4]);
    }
}
