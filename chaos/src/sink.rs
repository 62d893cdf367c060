//! The database that the flows fill, with an account of its own: every change of a fence row, in the
//! transaction that made it, and which rows came with it.

use std::{collections::BTreeMap, io, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use tenure::demo::{balance::Count, documents::TABLE};
use tenure_core::{
    id::FlowId,
    token::{Holder, Token},
};
use tenure_sim::{event::Event, time::Time};
use tenure_testbed::server::Postgres;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::record::Record;

/// The user's table remembers in which order and by which transaction each row came. Tenure does not
/// know of these columns.
const OWN_TABLE: &str = "CREATE TABLE trades (feed text, seq bigint, at bigint, price numeric,
    came bigserial, by xid8 NOT NULL DEFAULT pg_current_xact_id())";

/// A row per change of a fence, in the transaction that made it: what is rolled back was not. For one
/// flow the order of `id` is the order of the commits, because the row stays locked until the commit.
const AUDIT: &str = "
CREATE TABLE chaos_audit (id bigserial PRIMARY KEY, by xid8 NOT NULL, what text NOT NULL,
    flow text NOT NULL, lineage bigint NOT NULL, epoch bigint NOT NULL, attempt bigint NOT NULL,
    holder text NOT NULL, seq bigint NOT NULL, position text, origin bigint NOT NULL);
CREATE TABLE chaos_began AS SELECT pg_current_xact_id() AS by;
CREATE FUNCTION chaos_audit() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE
    fence tenure_flow_fence := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    change text := CASE WHEN TG_OP = 'DELETE' THEN 'deleted'
        WHEN TG_OP = 'INSERT' OR NEW.seq = OLD.seq THEN 'raised' ELSE 'moved' END;
BEGIN
    INSERT INTO chaos_audit (by, what, flow, lineage, epoch, attempt, holder, seq, position, origin)
    VALUES (pg_current_xact_id(), change,
        fence.flow, fence.lineage, fence.epoch, fence.attempt, fence.holder, fence.seq, fence.position,
        fence.origin);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_audit AFTER INSERT OR UPDATE OR DELETE ON tenure_flow_fence
    FOR EACH ROW EXECUTE FUNCTION chaos_audit();";

/// What happened, with the moment of the commit. The moment is the server's, of the same wall clock.
const HISTORY: &str = "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xid(by))) * 1000000)::bigint,
    by::text, what, flow, lineage, epoch, attempt, holder, seq, position, origin FROM chaos_audit ORDER BY id";

/// The rows since the account began, by transaction and in the order in which they came. What a
/// transaction wrote that was numbered before may have moved its fence before, too.
const ROWS: &str = "SELECT by::text, feed, seq FROM trades WHERE by > (SELECT by FROM chaos_began) ORDER BY came";

/// Damage by hand, a transaction each: a row twice; a fence that falls; a row that is taken out and put
/// back, so that nothing is missing, but by a transaction that moves no fence; a fence row that goes.
/// The feeds 0 to 2 can be resumed.
const DAMAGE: [&str; 4] = [
    "INSERT INTO trades (feed, seq, at, price) SELECT feed, seq, at, price FROM trades
        WHERE feed = 'f000' ORDER BY seq LIMIT 1",
    "UPDATE tenure_flow_fence SET lineage = lineage - 1 WHERE flow = 'f000'",
    "WITH gone AS (DELETE FROM trades WHERE ctid =
            (SELECT ctid FROM trades WHERE feed = 'f001' ORDER BY seq LIMIT 1) RETURNING feed, seq, at, price)
        INSERT INTO trades (feed, seq, at, price) SELECT * FROM gone",
    "DELETE FROM tenure_flow_fence WHERE flow = 'f002'",
];

/// So many rows or flows are named in an accusation.
const NAMED_MAX: usize = 5;

/// See the module's head. Clones share the server.
#[derive(Clone)]
pub(crate) struct Sink {
    postgres: Arc<Postgres>,
    url: String,
}

/// What a position was durable from.
pub(crate) type Durable = BTreeMap<String, BTreeMap<u64, (Time, Token, u64)>>;

/// One change of a fence row.
pub(crate) struct Change {
    pub(crate) at: Time,
    pub(crate) event: Event,
    /// The position that the row has since.
    pub(crate) position: Option<u64>,
}

/// The account of a run.
#[derive(Default)]
pub(crate) struct Account {
    /// Every change of a fence, with the records that came in the same transaction.
    pub(crate) changes: Vec<Change>,
    /// What no fence explains.
    pub(crate) accusations: Vec<String>,
}

impl Sink {
    /// A server of our own; it listens at that address, too.
    pub(crate) fn start(at: Option<Ipv4Addr>) -> Sink {
        let postgres = match at {
            Some(address) => Postgres::start_at(address.into()),
            None => Postgres::start(),
        };
        let url = postgres.database();
        postgres.sql(&url, "ALTER SYSTEM SET track_commit_timestamp = on");
        postgres.restart();
        postgres.sql(&url, OWN_TABLE);
        Sink { postgres: Arc::new(postgres), url }
    }

    /// What the nodes connect to.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Begins the account; Tenure's tables must be there. What was before is not in it.
    pub(crate) fn audit(&self) {
        self.postgres.sql(&self.url, AUDIT);
    }

    /// True once Tenure has made its tables.
    pub(crate) fn has_fences(&self) -> bool {
        self.postgres.sql(&self.url, "SELECT to_regclass('tenure_flow_fence') IS NOT NULL") == "t"
    }

    /// Kills every process of the server and starts it again.
    pub(crate) async fn crash(&self) -> io::Result<()> {
        let postgres = Arc::clone(&self.postgres);
        let crashed = move || {
            postgres.kill9();
            postgres.start_again();
        };
        tokio::task::spawn_blocking(crashed).await.map_err(io::Error::other)
    }

    /// Locks the user's table against writers for so long.
    pub(crate) async fn lock_table(&self, span: Duration) -> Result<bool, tokio_postgres::Error> {
        self.hold("LOCK TABLE trades IN SHARE MODE", span).await?;
        Ok(true)
    }

    /// Locks some flow's fence row for so long; gives false if there is none.
    pub(crate) async fn lock_fence(&self, flow: &str, span: Duration) -> Result<bool, tokio_postgres::Error> {
        let lock = format!("SELECT 1 FROM tenure_flow_fence WHERE flow = '{flow}' FOR UPDATE");
        Ok(self.hold(&lock, span).await? > 0)
    }

    /// Gives how many rows were locked by name.
    async fn hold(&self, lock: &str, span: Duration) -> Result<usize, tokio_postgres::Error> {
        let client = self.client().await?;
        client.batch_execute("BEGIN; SET LOCAL lock_timeout = '3s'").await?;
        let locked = client.simple_query(lock).await?;
        tokio::time::sleep(span).await;
        client.batch_execute("ROLLBACK").await?;
        Ok(locked.iter().filter(|said| matches!(said, SimpleQueryMessage::Row(_))).count())
    }

    /// Damages it by hand: what the judge must notice.
    pub(crate) async fn damage(&self) -> Result<(), tokio_postgres::Error> {
        let client = self.client().await?;
        for sql in DAMAGE {
            client.batch_execute(sql).await?;
        }
        Ok(())
    }

    async fn client(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        // It ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Counts what is stored of those feeds against what was produced of them.
    pub(crate) async fn count(&self, produced: &BTreeMap<String, u64>) -> Result<Count, tokio_postgres::Error> {
        let mut count = Count::of(produced);
        let client = self.client().await?;
        let rows = client.query_raw::<_, i64, _>(&format!("SELECT feed, seq FROM {TABLE}"), []).await?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await? {
            let feed: &str = row.get(0);
            if produced.contains_key(feed) {
                count.row(feed, row.get(1));
            }
        }
        Ok(count)
    }

    /// A whole table, for people.
    pub(crate) async fn csv(&self, table: &str) -> Result<Vec<u8>, tokio_postgres::Error> {
        let client = self.client().await?;
        let rows = client.copy_out(&format!("COPY {table} TO STDOUT (FORMAT csv, HEADER)")).await?;
        rows.try_fold(Vec::new(), async |mut text, more| {
            text.extend_from_slice(&more);
            Ok(text)
        })
        .await
    }

    /// Where the server's log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.postgres.data_dir().with_file_name("log")
    }

    /// How many rows were kept aside instead of stored.
    pub(crate) async fn rejected(&self) -> Result<i64, tokio_postgres::Error> {
        let client = self.client().await?;
        Ok(client.query_one("SELECT count(*) FROM tenure_rejected", &[]).await?.get(0))
    }

    /// Every change of a fence, and the rows that came without one.
    pub(crate) async fn account(&self, record: &Record) -> Result<Account, tokio_postgres::Error> {
        let client = self.client().await?;
        let mut rows_of = rows(&client).await?;
        let changes = client.query_raw::<_, i64, _>(HISTORY, []).await?;
        let mut changes = std::pin::pin!(changes);
        let mut account = Account::default();
        while let Some(row) = changes.try_next().await? {
            let number = |column: usize| row.get::<_, i64>(column) as u64;
            let name: &str = row.get(3);
            let at = record.at_wall(number(0));
            let Ok(flow) = FlowId::new(name) else {
                account.accusations.push(format!("fences_are_of_flows: {at} {name:?} is no flow's id"));
                continue;
            };
            let token = Token { lineage: number(4), epoch: number(5), attempt: number(6) as u32 };
            let holder = Holder(u128::from_str_radix(row.get(7), 16).unwrap_or(0));
            let (sink, seq) = (0, number(8));
            let position = row.get::<_, Option<String>>(9).and_then(|position| position.parse().ok());
            let event = match row.get(2) {
                "raised" => Event::Claimed { sink, flow, token, holder, seq, position, origin: number(10) },
                "moved" => {
                    let records = rows_of.remove(&(row.get::<_, String>(1), flow.to_string())).unwrap_or_default();
                    Event::Committed { sink, flow, token, holder, seq, records, position }
                }
                _ => {
                    account
                        .accusations
                        .push(format!("fence_is_kept: {at} the fence row of {flow} {token} was deleted"));
                    continue;
                }
            };
            account.changes.push(Change { at, event, position });
        }
        account.accusations.extend(stale(&rows_of));
        Ok(account)
    }
}

/// The records of each transaction and feed, in the order in which they came.
type RowsOf = BTreeMap<(String, String), Vec<u64>>;

async fn rows(client: &Client) -> Result<RowsOf, tokio_postgres::Error> {
    let rows = client.query_raw::<_, i64, _>(ROWS, []).await?;
    let mut rows = std::pin::pin!(rows);
    let mut of = RowsOf::new();
    while let Some(row) = rows.try_next().await? {
        of.entry((row.get(0), row.get(1))).or_default().push(row.get::<_, i64>(2) as u64);
    }
    Ok(of)
}

/// What is left when every batch has its rows came past the fence.
fn stale(left: &RowsOf) -> Option<String> {
    let some: Vec<String> = left
        .iter()
        .take(NAMED_MAX)
        .map(|((by, feed), records)| format!("{feed} {records:?} by transaction {by}"))
        .collect();
    (!left.is_empty()).then(|| {
        format!(
            "stale_row: Every row comes in a transaction that moves its flow's fence. {} did not: {}",
            left.values().map(Vec::len).sum::<usize>(),
            some.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_no_batch_brought_are_named_and_counted() {
        assert_eq!(stale(&RowsOf::new()), None);
        let left = RowsOf::from([(("77".to_owned(), "f001".to_owned()), vec![3, 4])]);
        let said = stale(&left).unwrap();
        assert!(said.contains("2 did not") && said.contains("f001 [3, 4] by transaction 77"), "{said}");
    }
}
