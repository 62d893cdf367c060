//! One connection to the server, and its settings.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use tenure_core::flow::{Reason, supervisor::Code};
use tokio::task::AbortHandle;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Statement, tls::TlsStream};
use tracing::debug;

use super::address::Address;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Batches. May be ended by a claim that it stands in the way of.
    Write,
    /// Claims.
    Claim,
    /// Looks, and clearing the way.
    Aside,
}

/// A client that is frozen within a transaction is ended by the server after two seconds; one
/// that is gone is noticed. No statement of a batch takes long: data of 8 MiB, one update.
const WRITER: &str =
    "SET idle_in_transaction_session_timeout = '2s'; SET statement_timeout = '15s'; SET lock_timeout = '4s';";
/// Above the two seconds after which the server ends a frozen writer that we may not end.
const CLAIMER: &str = "SET lock_timeout = '2500ms'; SET statement_timeout = '10s';";
const ASIDE: &str = "SET statement_timeout = '2s';";
/// A commit counts when it is durable, whatever this user's default is; stronger defaults stay.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')";
/// Not known to every version and platform.
const OPTIONAL: [&str; 2] = ["SET tcp_user_timeout = '5s'", "SET client_connection_check_interval = '1s'"];

/// A live connection. Dropping it closes the socket at once.
pub(super) struct Session {
    pub(super) client: Client,
    /// The server's process that serves it.
    pub(super) pid: i32,
    driver: AbortHandle,
    own: Arc<OwnPids>,
    statements: HashMap<Arc<str>, Statement>,
}

/// The backends that serve this process, so that it never ends its own.
#[derive(Default)]
pub(super) struct OwnPids(Mutex<BTreeSet<i32>>);

impl OwnPids {
    pub(super) fn all(&self) -> Vec<i32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn add(&self, pid: i32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    }

    fn remove(&self, pid: i32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }
}

impl Session {
    pub(super) async fn open(
        address: &Address,
        application_name: &str,
        purpose: Purpose,
        own: &Arc<OwnPids>,
    ) -> Result<Session, tokio_postgres::Error> {
        let mut config = address.config.clone();
        config.application_name(name_for(application_name, purpose));
        let (client, driver) = match &address.tls {
            Some(tls) => drive(config.connect(tls.clone()).await?),
            None => drive(config.connect(NoTls).await?),
        };
        // From here on a failure closes the socket again.
        let mut session = Session { client, pid: 0, driver, own: Arc::clone(own), statements: HashMap::new() };
        session.settle_in(purpose).await?;
        Ok(session)
    }

    async fn settle_in(&mut self, purpose: Purpose) -> Result<(), tokio_postgres::Error> {
        let settings = match purpose {
            Purpose::Write => WRITER,
            Purpose::Claim => CLAIMER,
            Purpose::Aside => ASIDE,
        };
        self.client.batch_execute(settings).await?;
        self.client.batch_execute(DURABLE).await?;
        for optional in OPTIONAL {
            if let Err(error) = self.client.batch_execute(optional).await {
                debug!(%error, optional, "the server does not know this setting");
            }
        }
        self.pid = self.client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        self.own.add(self.pid);
        Ok(())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Prepared once per connection.
    pub(super) async fn prepared(&mut self, sql: &Arc<str>) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(Arc::clone(sql), statement.clone());
        Ok(statement)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.own.remove(self.pid);
        self.driver.abort();
    }
}

/// Only writers carry the name that a claim looks for when something stands in its way. The server
/// keeps 63 bytes.
fn name_for(application_name: &str, purpose: Purpose) -> String {
    let name = match purpose {
        Purpose::Write => application_name.to_owned(),
        Purpose::Claim => format!("tenure-claims{}", application_name.trim_start_matches("tenure")),
        Purpose::Aside => format!("tenure-looks{}", application_name.trim_start_matches("tenure")),
    };
    name.chars().take(63).collect()
}

pub(super) fn drive<T>(
    (client, mut connection): (Client, Connection<tokio_postgres::Socket, T>),
) -> (Client, AbortHandle)
where
    T: TlsStream + Unpin + Send + 'static,
{
    let body = async move {
        while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                Ok(AsyncMessage::Notice(notice)) => debug!(%notice, "from the server"),
                Ok(_) => {}
                // Whoever waits for an answer is told by the client's side.
                Err(error) => return debug!(%error, "a connection ended"),
            }
        }
    };
    (client, tokio::spawn(body).abort_handle())
}

/// What to tell a flow whose sink cannot be reached.
pub(super) fn unreachable(address: &Address, error: &tokio_postgres::Error) -> Reason {
    Reason::new(Code::SinkUnreachable, format!("postgres {address}: {}", spoken(error)))
}

/// The library's errors hide the interesting part in their source.
pub(super) fn spoken(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
    }
}
