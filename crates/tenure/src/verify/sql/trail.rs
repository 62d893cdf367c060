//! The audit trail's tables and triggers, as scripts that people can read before they run them.

use super::{super::target::Place, questions::STATE};

/// The script that begins a trail, or begins it anew. It takes the fence table for itself for a
/// moment, so that no change is missed between the rows it notes and the first that it traces.
pub fn install(place: &Place) -> String {
    match place {
        Place::Sqlite(_) => sqlite_install(),
        Place::Postgres(_) => postgres_install(),
    }
}

/// The script that removes the trail and everything about it.
pub fn remove(place: &Place) -> String {
    match place {
        Place::Sqlite(_) => format!("BEGIN IMMEDIATE;\n{SQLITE_DROP}COMMIT;\n"),
        Place::Postgres(_) => format!("BEGIN;\nSET LOCAL lock_timeout = '2s';\n{POSTGRES_DROP}COMMIT;\n"),
    }
}

const POSTGRES_DROP: &str = "\
DROP TRIGGER IF EXISTS tenure_fence_audit ON tenure_flow_fence;
DROP FUNCTION IF EXISTS tenure_fence_audit_v1();
DROP TABLE IF EXISTS tenure_fence_audit;
";

const SQLITE_DROP: &str = "\
DROP TRIGGER IF EXISTS tenure_fence_audit_insert;
DROP TRIGGER IF EXISTS tenure_fence_audit_update;
DROP TRIGGER IF EXISTS tenure_fence_audit_delete;
DROP TABLE IF EXISTS tenure_fence_audit;
";

fn columns(prefix: &str) -> String {
    STATE.map(|column| format!("{prefix}{column}")).join(", ")
}

fn definitions(prefix: &str, number: &str, text: &str) -> String {
    let kind = |column: &str| if matches!(column, "holder" | "position") { text } else { number };
    STATE.map(|column| format!("{prefix}{column} {}", kind(column))).join(", ")
}

/// What is there when the trail begins. In PostgreSQL the savepoint gives the line `began` a
/// transaction number of its own, drawn while nobody else can move a fence: whatever has a greater
/// one moves its fence afterwards, under the trigger's eyes.
fn baseline() -> String {
    let state = columns("");
    format!(
        "SAVEPOINT began;
INSERT INTO tenure_fence_audit (op, flow) VALUES ('began', '');
RELEASE SAVEPOINT began;
INSERT INTO tenure_fence_audit (op, flow, {state}) SELECT 'seen', flow, {state} FROM tenure_flow_fence;
"
    )
}

/// The function runs with its owner's rights, so that the nodes' role needs none on the trail and
/// cannot change it.
fn postgres_install() -> String {
    format!(
        "\
-- Each change of a row of tenure_flow_fence appends a line to tenure_fence_audit, in the same transaction:
-- one line (some 250 bytes) per claim and per batch and flow. Nothing removes them but beginning anew or
-- the removal of the trail. If the trail cannot be written, neither can the data.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '2s';
DO $tenure$ BEGIN
  IF current_setting('server_version_num')::int < 110000 THEN RAISE EXCEPTION 'PostgreSQL 11 or later is needed'; END IF;
END $tenure$;
LOCK TABLE tenure_flow_fence IN ACCESS EXCLUSIVE MODE;
{POSTGRES_DROP}CREATE TABLE tenure_fence_audit (
  id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
  op text NOT NULL, flow text COLLATE \"C\" NOT NULL,
  {},
  {}
);
CREATE FUNCTION tenure_fence_audit_v1() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $tenure$
BEGIN
  INSERT INTO tenure_fence_audit (op, flow, {},
    {})
  VALUES (lower(TG_OP), coalesce(NEW.flow, OLD.flow), {},
    {});
  RETURN NULL;
END $tenure$;
CREATE TRIGGER tenure_fence_audit AFTER INSERT OR UPDATE OR DELETE ON tenure_flow_fence
  FOR EACH ROW EXECUTE FUNCTION tenure_fence_audit_v1();
{}COMMIT;
",
        definitions("was_", "bigint", "text"),
        definitions("", "bigint", "text"),
        columns("was_"),
        columns(""),
        columns("OLD."),
        columns("NEW."),
        baseline(),
    )
}

fn sqlite_install() -> String {
    let trigger = |event: &str, old: bool, new: bool| {
        let of = |there: bool, prefix: &str| if there { columns(prefix) } else { STATE.map(|_| "NULL").join(", ") };
        format!(
            "CREATE TRIGGER tenure_fence_audit_{event} AFTER {} ON tenure_flow_fence BEGIN
  INSERT INTO tenure_fence_audit (op, flow, {},
    {})
  VALUES ('{event}', {}.flow, {},
    {});
END;
",
            event.to_uppercase(),
            columns("was_"),
            columns(""),
            if new { "NEW" } else { "OLD" },
            of(old, "OLD."),
            of(new, "NEW."),
        )
    };
    format!(
        "\
-- Each change of a row of tenure_flow_fence appends a line to tenure_fence_audit, in the same transaction:
-- one line (some 250 bytes) per claim and per batch and flow. Nothing removes them but beginning anew or
-- the removal of the trail. If the trail cannot be written, neither can the data.
BEGIN IMMEDIATE;
{SQLITE_DROP}CREATE TABLE tenure_fence_audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  op TEXT NOT NULL, flow TEXT NOT NULL,
  {},
  {}
);
{}{}{}{}COMMIT;
",
        definitions("was_", "INTEGER", "TEXT"),
        definitions("", "INTEGER", "TEXT"),
        trigger("insert", false, true),
        trigger("update", true, true),
        trigger("delete", true, false),
        baseline(),
    )
}
