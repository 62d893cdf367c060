//! Starting commands that cannot outlive this process.

use std::{
    io,
    sync::{OnceLock, mpsc},
    thread,
};

use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

struct Order {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts a command in a process group of its own. It is killed when the child is dropped, and by
/// the kernel when this process ends in whatever way.
///
/// The kernel ties that to the *thread* that started it, and a runtime's threads come and go; so
/// one thread that never ends starts them all.
pub(super) async fn spawn(mut command: Command) -> io::Result<Child> {
    command.kill_on_drop(true).process_group(0);
    die_with_parent(&mut command);
    let (reply, answer) = oneshot::channel();
    let order = Order { command, runtime: Handle::current(), reply };
    let gone = || io::Error::other("the thread that starts commands is gone");
    orders()?.send(order).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

fn orders() -> io::Result<&'static mpsc::Sender<Order>> {
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    if let Some(orders) = ORDERS.get() {
        return Ok(orders);
    }
    let (orders, taken) = mpsc::channel();
    thread::Builder::new().name("exec-spawner".to_owned()).spawn(move || serve(&taken))?;
    // Where two come first at once, the thread of the second finds its channel closed and ends.
    Ok(ORDERS.get_or_init(|| orders))
}

fn serve(orders: &mpsc::Receiver<Order>) {
    for Order { mut command, runtime, reply } in orders {
        let _entered = runtime.enter();
        // Nobody waits any more: the child is dropped, and so killed.
        let _unwanted = reply.send(command.spawn());
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "there is no safe way to set a child's death signal")]
fn die_with_parent(command: &mut Command) {
    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

    let parent = getpid();
    let tie = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the tie was made.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes two
    // system calls and one comparison; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(tie) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}
