//! PostgreSQL: one connection that can only read. All facts come from one repeatable-read snapshot,
//! which locks no row.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{TryStreamExt, pin_mut};
use tenure_connect::sink::postgres::Visit;
use tenure_core::flow::spec::Secret;
use tokio_postgres::{Row, types::FromSql};

use super::{
    super::{
        fence::{Fence, Fences, Rank, TABLE},
        finding::Finding,
        moment::{Facts, wants_aside},
        rows::{Aside, Tallies, number_aside},
        target::{Table, Target},
        trail::{AUDIT, Entry, Told, Trail},
    },
    Trouble, no_trail,
    questions::{self, quoted},
};

const NAME: &str = "tenure-verify";
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const AGE: &str = "extract(epoch FROM clock_timestamp() - at)::bigint";

/// A server, and the connection to it.
pub struct Server {
    visit: Visit,
}

impl Server {
    pub(super) async fn open(url: &Secret, limit: Duration) -> Result<Server, Trouble> {
        let settings = format!(
            "SET default_transaction_read_only = on; SET statement_timeout = {}; SET lock_timeout = '2s';
             SET idle_in_transaction_session_timeout = '60s'",
            limit.as_millis().max(1)
        );
        Ok(Server { visit: Visit::open(url, NAME, &settings).await? })
    }

    pub(super) fn name(&self) -> String {
        format!("postgres {}", self.visit.place())
    }

    pub(super) async fn fences(&self) -> Result<Option<Fences>, Trouble> {
        Ok(self.dated_fences().await?.0)
    }

    pub(super) async fn moment(&self, target: &Target) -> Result<Facts, Trouble> {
        self.batch(SNAPSHOT).await?;
        let facts = self.facts(target).await;
        self.batch("ROLLBACK").await?;
        facts
    }

    async fn facts(&self, target: &Target) -> Result<Facts, Trouble> {
        let (fences, idle) = self.dated_fences().await?;
        let mut facts = Facts { fences, idle, aside: self.aside().await?, tables: Vec::new() };
        for table in &target.tables {
            facts.tables.push(self.tallies(table).await?);
        }
        for (table, flow) in wants_aside(target, &facts) {
            let numbers = self.numbers_aside(table, &flow).await?;
            facts.aside.entry(flow).or_default().numbers = numbers;
        }
        Ok(facts)
    }

    async fn dated_fences(&self) -> Result<(Option<Fences>, BTreeMap<String, i64>), Trouble> {
        if self.columns(TABLE).await?.is_empty() {
            return Ok((None, BTreeMap::new()));
        }
        let (mut fences, mut idle) = (Fences::new(), BTreeMap::new());
        for row in self.query(&questions::fences(AGE), &[]).await? {
            let flow: String = self.cell(&row, 0)?;
            if let Some(seconds) = self.cell::<Option<i64>>(&row, 9)? {
                idle.insert(flow.clone(), seconds);
            }
            fences.insert(flow.clone(), self.state(flow, &row, 1)?);
        }
        Ok((Some(fences), idle))
    }

    async fn aside(&self) -> Result<BTreeMap<String, Aside>, Trouble> {
        if self.columns("tenure_rejected").await?.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = self.query(questions::ASIDE, &[]).await?;
        let one = |row: &Row| Ok((self.cell(row, 0)?, Aside { count: self.cell(row, 1)?, numbers: Vec::new() }));
        rows.iter().map(one).collect()
    }

    async fn numbers_aside(&self, table: &Table, flow: &str) -> Result<Vec<i64>, Trouble> {
        let Some(sequence) = &table.sequence else { return Ok(Vec::new()) };
        let rows = self.query("SELECT raw FROM tenure_rejected WHERE flow = $1", &[flow]).await?;
        let raws = rows.iter().map(|row| self.cell::<&[u8]>(row, 0)).collect::<Result<Vec<_>, _>>()?;
        Ok(raws.into_iter().filter_map(|raw| number_aside(raw, sequence)).collect())
    }

    async fn tallies(&self, table: &Table) -> Result<Option<Tallies>, Trouble> {
        let from = quoted_table(&table.name);
        let found = self.columns(&from).await?;
        if found.is_empty() {
            return Ok(None);
        }
        let known = |wanted: &String| match found.get(wanted) {
            Some(oid) => Ok(*oid),
            None => {
                let there = found.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                let missing = format!("{}: {} has no column {wanted} (it has {there})", self.name(), table.name);
                Err(Trouble::Missing(missing))
            }
        };
        table.per.as_ref().map(known).transpose()?;
        let group = table.per.as_ref().map_or_else(|| "NULL::text".to_owned(), |per| format!("{}::text", quoted(per)));
        let number = match &table.sequence {
            Some(sequence) => number(&quoted(&sequence.column), known(&sequence.column)?),
            None => "NULL::bigint".to_owned(),
        };
        self.runs(table, &questions::runs(table, &from, &group, &number)).await.map(Some)
    }

    async fn runs(&self, table: &Table, sql: &str) -> Result<Tallies, Trouble> {
        let gapless = table.sequence.as_ref().is_some_and(|sequence| sequence.gapless);
        let mut tallies = Tallies::new();
        let rows = self.visit.client.query_raw::<_, &str, _>(sql, []).await.map_err(|error| self.blame(&error))?;
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await.map_err(|error| self.blame(&error))? {
            let span = (self.cell(&row, 1)?, self.cell(&row, 2)?);
            let (group, rows, repeated) = (self.cell(&row, 0)?, self.cell(&row, 3)?, self.cell(&row, 4)?);
            let run = questions::run(group, span, rows, repeated, self.cell(&row, 5)?);
            tallies.entry(run.group.clone()).or_default().add(&run, gapless);
        }
        Ok(tallies)
    }

    pub(super) async fn audit(&self, target: &Target) -> Result<(Told, Vec<Finding>), Trouble> {
        self.batch(SNAPSHOT).await?;
        let judged = self.judge_trail(target).await;
        self.batch("ROLLBACK").await?;
        judged
    }

    async fn judge_trail(&self, target: &Target) -> Result<(Told, Vec<Finding>), Trouble> {
        if self.columns(AUDIT).await?.is_empty() {
            return Err(no_trail(&self.name()));
        }
        let mut trail = Trail::default();
        let sql = questions::trail();
        let rows = self.visit.client.query_raw::<_, &str, _>(&sql, []).await.map_err(|error| self.blame(&error))?;
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await.map_err(|error| self.blame(&error))? {
            self.entry(&row)?.into_iter().for_each(|entry| trail.add(entry));
        }
        let (told, mut findings) = trail.end(&self.fences().await?.unwrap_or_default());
        let broken = findings.iter().any(|finding| finding.code == "trail_broken");
        let excuse = broken.then_some("the trail is broken, so they may have come with a fence that it did not see");
        for table in &target.tables {
            findings.extend(self.strays(table).await?.map(|finding| finding.unless(excuse)));
        }
        Ok((told, findings))
    }

    /// Rows of a transaction that moved no fence. The trail's lines and the rows of one transaction
    /// carry its number, and the line `began` carries the number above which this holds.
    async fn strays(&self, table: &Table) -> Result<Option<Finding>, Trouble> {
        let from = quoted_table(&table.name);
        // Only rows that are stored carry the number of a transaction.
        let kind = "SELECT FROM pg_class WHERE oid = to_regclass($1::text) AND relkind IN ('r', 'p')";
        if self.query(kind, &[&from]).await?.is_empty() {
            return Ok(None);
        }
        let sql = format!(
            "SELECT count(*), (array_agg(t.ctid::text))[1:3] FROM {from} t
             WHERE age(t.xmin) < (SELECT age(xmin) FROM {AUDIT} WHERE op = 'began')
               AND NOT EXISTS (SELECT FROM {AUDIT} a WHERE a.xmin = t.xmin)"
        );
        let rows = self.query(&sql, &[]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (count, places): (i64, Option<Vec<String>>) = (self.cell(row, 0)?, self.cell(row, 1)?);
        Ok((count > 0).then(|| {
            let places = places.unwrap_or_default().join(" ");
            let rows = if count == 1 { "1 row".to_owned() } else { format!("{count} rows") };
            let what = format!("{rows} came without a fence (ctid {places})");
            let remedy = "a writer went past the fence, or somebody else inserts or updates rows here";
            Finding::violation("stray_row", &table.name, what, remedy)
        }))
    }

    /// Columns of a table and the types of their values; no column means no table.
    async fn columns(&self, table: &str) -> Result<BTreeMap<String, u32>, Trouble> {
        let sql = "SELECT attname::text, atttypid FROM pg_attribute
            WHERE attrelid = to_regclass($1::text) AND attnum > 0 AND NOT attisdropped";
        let rows = self.query(sql, &[table]).await?;
        rows.iter().map(|row| Ok((self.cell(row, 0)?, self.cell(row, 1)?))).collect()
    }

    fn state(&self, flow: String, row: &Row, at: usize) -> Result<Fence, Trouble> {
        Ok(Fence {
            flow,
            token: Rank(self.cell(row, at)?, self.cell(row, at + 1)?, self.cell(row, at + 2)?),
            holder: self.cell(row, at + 3)?,
            seq: self.cell(row, at + 4)?,
            nonce: self.cell(row, at + 5)?,
            position: self.cell(row, at + 6)?,
            origin: self.cell(row, at + 7)?,
        })
    }

    fn entry(&self, row: &Row) -> Result<Option<Entry>, Trouble> {
        let (op, flow): (String, String) = (self.cell(row, 1)?, self.cell(row, 2)?);
        let part = |at: usize| match self.cell::<Option<i64>>(row, at)? {
            Some(_) => self.state(flow.clone(), row, at).map(Some),
            None => Ok(None),
        };
        let (id, old, new) = (self.cell(row, 0)?, part(3)?, part(3 + questions::STATE.len())?);
        Ok((op != "began").then_some(Entry { id, old, new, baseline: op == "seen" }))
    }

    fn cell<'r, T: FromSql<'r>>(&self, row: &'r Row, at: usize) -> Result<T, Trouble> {
        row.try_get(at).map_err(|error| Trouble::Refused(format!("{}: {error}", self.name())))
    }

    async fn query(&self, sql: &str, values: &[&str]) -> Result<Vec<Row>, Trouble> {
        let rows =
            self.visit.client.query_raw(sql, values.iter().copied()).await.map_err(|error| self.blame(&error))?;
        rows.try_collect().await.map_err(|error| self.blame(&error))
    }

    async fn batch(&self, sql: &str) -> Result<(), Trouble> {
        self.visit.client.batch_execute(sql).await.map_err(|error| self.blame(&error))
    }

    fn blame(&self, error: &tokio_postgres::Error) -> Trouble {
        blame(&self.visit, error)
    }
}

fn blame(visit: &Visit, error: &tokio_postgres::Error) -> Trouble {
    let reason = visit.blame(error);
    match error.code().map(|code| code.code()) {
        Some("57014") => Trouble::Refused(format!("{}; give it longer with --timeout", reason.detail)),
        _ => reason.into(),
    }
}

/// Runs a script that writes.
pub(super) async fn run(url: &Secret, script: &str) -> Result<(), Trouble> {
    let visit = Visit::open(url, NAME, "SET statement_timeout = '60s'").await?;
    visit.client.batch_execute(script).await.map_err(|error| blame(&visit, &error))
}

fn quoted_table(name: &str) -> String {
    name.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

/// smallint, integer and bigint are numbers; of everything else the text may be one.
fn number(column: &str, oid: u32) -> String {
    match oid {
        20 | 21 | 23 => format!("{column}::bigint"),
        _ => format!("CASE WHEN {column}::text ~ '^-?[0-9]{{1,18}}$' THEN {column}::text::bigint END"),
    }
}
