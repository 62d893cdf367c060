//! Fence rows in PostgreSQL: the tables, the claim, and the one message that proves and commits.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Deserialize;
use tenure_core::{
    grant::Grant,
    id::FlowId,
    token::{Holder, Token},
};
use tokio_postgres::{Client, Row, SimpleQueryMessage};

use crate::sink::committer::{Load, Member, Nonce, Stored};

/// Held while tables are made, so that nodes do not trip over each other.
pub(super) const SCHEMA_LOCK: i64 = 0x7465_6e75_7265;
/// Raised by [`ADVANCE`] when a fence row is not as its writer believes.
pub(super) const FENCED: &str = "TN001";

const THERE: &str =
    "SELECT (to_regclass('tenure_flow_fence') IS NOT NULL AND to_regclass('tenure_rejected') IS NOT NULL
    AND EXISTS (SELECT FROM pg_proc WHERE proname = 'tenure_fence_advance_v1' AND pg_function_is_visible(oid)))::text";

/// Order of ids is byte order everywhere: it is the order in which rows are locked. Half-empty
/// pages let the one hot row per flow be updated in place.
const TABLES: &str = r#"
CREATE TABLE IF NOT EXISTS tenure_flow_fence (
    flow text COLLATE "C" PRIMARY KEY,
    lineage bigint NOT NULL, epoch bigint NOT NULL, attempt bigint NOT NULL,
    holder text NOT NULL, seq bigint NOT NULL, nonce bigint NOT NULL,
    position text, origin bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS tenure_rejected (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    flow text COLLATE "C" NOT NULL,
    lineage bigint NOT NULL, epoch bigint NOT NULL, attempt bigint NOT NULL,
    seq bigint NOT NULL, error text NOT NULL, raw bytea NOT NULL, length bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS tenure_rejected_flow ON tenure_rejected (flow, id);
COMMENT ON TABLE tenure_flow_fence IS 'One row per Tenure flow: who may write (lineage, epoch, attempt, holder), and the last durable batch and position. Safe to read.';
COMMENT ON TABLE tenure_rejected IS 'Records that Tenure kept aside, the newest 1000 per flow. Safe to read and to empty.';
"#;

/// Locks all rows in id order, moves those on that are as their writers believe, and raises if any
/// is not, naming it and what it holds. A raise aborts the transaction on the server, whatever the
/// client does next.
const ADVANCE: &str = r#"
CREATE OR REPLACE FUNCTION tenure_fence_advance_v1(
    flows text[], lineages bigint[], epochs bigint[], attempts bigint[], holders text[], seqs bigint[],
    positions text[], attempt_nonce bigint) RETURNS void LANGUAGE plpgsql AS $tenure$
DECLARE
    moved bigint;
    fenced text;
BEGIN
    PERFORM 1 FROM tenure_flow_fence f WHERE f.flow = ANY (flows) ORDER BY f.flow FOR NO KEY UPDATE;
    UPDATE tenure_flow_fence f
       SET seq = w.seq, nonce = attempt_nonce, position = coalesce(w.pos, f.position), at = clock_timestamp()
      FROM unnest(flows, lineages, epochs, attempts, holders, seqs, positions)
           AS w(flow, lineage, epoch, attempt, holder, seq, pos)
     WHERE f.flow = w.flow AND f.lineage = w.lineage AND f.epoch = w.epoch AND f.attempt = w.attempt
       AND f.holder = w.holder AND f.seq = w.seq - 1;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(flows) THEN
        SELECT json_agg(json_build_object('flow', w.flow, 'lineage', f.lineage, 'epoch', f.epoch,
                   'attempt', f.attempt, 'holder', f.holder, 'seq', f.seq, 'nonce', f.nonce))::text
          INTO fenced
          FROM unnest(flows, lineages, epochs, attempts, holders, seqs)
               AS w(flow, lineage, epoch, attempt, holder, seq)
          LEFT JOIN tenure_flow_fence f ON f.flow = w.flow
         WHERE NOT coalesce(f.lineage = w.lineage AND f.epoch = w.epoch AND f.attempt = w.attempt
                   AND f.holder = w.holder AND f.seq = w.seq AND f.nonce = attempt_nonce, false);
        RAISE EXCEPTION 'tenure: a fence has moved on' USING ERRCODE = 'TN001', DETAIL = fenced;
    END IF;
END $tenure$;
"#;

/// Raises fences, in id order; rows that may not be raised are not returned. A greater origin
/// forgets the position; what the last batch was is kept, because it proves that batch.
pub(super) const CLAIM: &str = "
INSERT INTO tenure_flow_fence AS x (flow, lineage, epoch, attempt, holder, seq, nonce, origin)
SELECT w.flow, w.lineage, w.epoch, w.attempt, w.holder, 0, 0, w.origin
  FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[])
       AS w(flow, lineage, epoch, attempt, holder, origin)
 ORDER BY w.flow COLLATE \"C\"
ON CONFLICT (flow) DO UPDATE
   SET lineage = excluded.lineage, epoch = excluded.epoch, attempt = excluded.attempt,
       holder = excluded.holder, at = clock_timestamp(), origin = greatest(x.origin, excluded.origin),
       position = CASE WHEN excluded.origin > x.origin THEN NULL ELSE x.position END
 WHERE (x.lineage, x.epoch, x.attempt) < (excluded.lineage, excluded.epoch, excluded.attempt)
    OR ((x.lineage, x.epoch, x.attempt) = (excluded.lineage, excluded.epoch, excluded.attempt)
        AND x.holder = excluded.holder)
RETURNING flow, seq, position";

/// Those of the rows that nobody holds.
pub(super) const FREE: &str =
    "SELECT flow FROM tenure_flow_fence WHERE flow = ANY ($1::text[]) FOR NO KEY UPDATE SKIP LOCKED";

pub(super) const LOOK: &str = "SELECT flow, lineage, epoch, attempt, holder, seq, nonce
    FROM tenure_flow_fence WHERE flow = ANY ($1::text[])";

/// Makes Tenure's tables and function where one of them is missing.
pub(super) async fn ensure(client: &Client) -> Result<(), tokio_postgres::Error> {
    let there = client.simple_query(THERE).await?;
    let there = there.iter().any(|m| matches!(m, SimpleQueryMessage::Row(row) if row.get(0) == Some("true")));
    if there {
        return Ok(());
    }
    let sql = format!("BEGIN; SELECT pg_advisory_xact_lock({SCHEMA_LOCK}); {TABLES} {ADVANCE} COMMIT");
    let done = client.batch_execute(&sql).await;
    if done.is_err() {
        // If even that fails, the connection is gone, and the caller finds out.
        let _closed = client.batch_execute("ROLLBACK").await;
    }
    done
}

/// The arrays of a claim; each flow at most once.
#[derive(Default)]
pub(super) struct ClaimArrays<'g> {
    pub(super) flows: Vec<&'g str>,
    pub(super) lineages: Vec<i64>,
    pub(super) epochs: Vec<i64>,
    pub(super) attempts: Vec<i64>,
    pub(super) holders: Vec<String>,
    pub(super) origins: Vec<i64>,
}

impl<'g> ClaimArrays<'g> {
    /// PostgreSQL knows no unsigned numbers. Lineages are seconds and epochs are counts; neither
    /// comes near the sign.
    pub(super) fn of(grants: impl Iterator<Item = &'g Grant>) -> ClaimArrays<'g> {
        let mut arrays = ClaimArrays::default();
        for grant in grants {
            arrays.flows.push(grant.flow.as_str());
            arrays.lineages.push(grant.token.lineage as i64);
            arrays.epochs.push(grant.token.epoch as i64);
            arrays.attempts.push(grant.token.attempt.into());
            arrays.holders.push(grant.holder.to_string());
            arrays.origins.push(grant.origin as i64);
        }
        arrays
    }
}

/// The fence rows of a look.
pub(super) fn stored(rows: &[Row]) -> BTreeMap<FlowId, Stored> {
    let one = |row: &Row| {
        let number = |at: usize| row.get::<_, i64>(at) as u64;
        let token = Token { lineage: number(1), epoch: number(2), attempt: number(3) as u32 };
        let stored = Stored { token, holder: holder(row.get(4)), seq: number(5), nonce: Nonce(number(6)) };
        Some((FlowId::new(row.get(0)).ok()?, stored))
    };
    rows.iter().filter_map(one).collect()
}

/// Anything but our own hex is somebody who is not us.
fn holder(hex: &str) -> Holder {
    Holder(u128::from_str_radix(hex, 16).unwrap_or(0))
}

/// The last message of a batch: checks that wait until commit come first, then every fence is
/// proved and moved, then it commits. One message, so that no client is asked anything while fence
/// rows are locked. `within` bounds the wait for those locks.
pub(super) fn advance_and_commit<P: Load>(
    members: &[Member<P>],
    nonce: Nonce,
    position: impl Fn(&P) -> Option<&str>,
    within: Option<u64>,
) -> String {
    // Whoever may be ended is out of the way after half a second; others are not waited for here.
    let mut sql = String::from("SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL lock_timeout = '1s'; ");
    if let Some(ms) = within {
        add(&mut sql, format_args!("SET LOCAL statement_timeout = {}; ", ms.max(1)));
    }
    let all = members.iter().map(|member| &member.what);
    sql.push_str("SELECT tenure_fence_advance_v1(");
    array(&mut sql, "text", all.clone().map(|what| literal(what.flow.as_str())));
    array(&mut sql, "bigint", all.clone().map(|what| (what.token.lineage as i64).to_string()));
    array(&mut sql, "bigint", all.clone().map(|what| (what.token.epoch as i64).to_string()));
    array(&mut sql, "bigint", all.clone().map(|what| what.token.attempt.to_string()));
    array(&mut sql, "text", all.clone().map(|what| literal(&what.holder.to_string())));
    array(&mut sql, "bigint", all.clone().map(|what| (what.seq as i64).to_string()));
    array(&mut sql, "text", all.map(|what| position(&what.load).map_or("NULL".to_owned(), literal)));
    add(&mut sql, format_args!("{}::bigint); COMMIT", literal(&(nonce.0 as i64).to_string())));
    sql
}

fn array(sql: &mut String, of: &str, items: impl Iterator<Item = String>) {
    sql.push_str("ARRAY[");
    for (i, item) in items.enumerate() {
        sql.push_str(if i > 0 { "," } else { "" });
        sql.push_str(&item);
    }
    add(sql, format_args!("]::{of}[], "));
}

/// Writing to a String cannot fail.
fn add(sql: &mut String, text: std::fmt::Arguments<'_>) {
    let _infallible = sql.write_fmt(text);
}

/// A text literal that means the same under every server setting: `E''` with both of its special
/// characters doubled.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[derive(Deserialize)]
struct FencedRow {
    flow: FlowId,
    lineage: Option<i64>,
    epoch: Option<i64>,
    attempt: Option<i64>,
    holder: Option<String>,
    seq: Option<i64>,
    nonce: Option<i64>,
}

/// What [`ADVANCE`] said about the fences that have moved on.
pub(super) fn fenced(detail: &str) -> Vec<(FlowId, Option<Stored>)> {
    let rows: Vec<FencedRow> = serde_json::from_str(detail).unwrap_or_default();
    rows.into_iter().map(|row| (row.flow.clone(), row.stored())).collect()
}

impl FencedRow {
    fn stored(self) -> Option<Stored> {
        let (lineage, epoch, attempt) = (self.lineage? as u64, self.epoch? as u64, self.attempt? as u32);
        Some(Stored {
            token: Token { lineage, epoch, attempt },
            holder: holder(&self.holder?),
            seq: self.seq? as u64,
            nonce: Nonce(self.nonce? as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_cannot_end_early() {
        assert_eq!(literal(r"it's \ '; DROP"), r"E'it''s \\ ''; DROP'");
    }

    #[test]
    fn the_detail_of_a_fence_is_read_back() {
        let detail = r#"[{"flow":"a","lineage":1,"epoch":2,"attempt":3,"holder":"0f","seq":4,"nonce":-1},
                         {"flow":"b","lineage":null,"epoch":null,"attempt":null,"holder":null,"seq":null,"nonce":null}]"#;
        let rows = fenced(detail);
        let first = rows[0].1.unwrap();
        assert_eq!((first.token.to_string().as_str(), first.holder, first.seq), ("1.2.3", Holder(15), 4));
        assert_eq!(first.nonce, Nonce(u64::MAX));
        assert_eq!((rows[1].0.as_str(), rows[1].1), ("b", None));
    }
}
