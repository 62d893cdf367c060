//! `tenure plan`: what the planner would do now.

use comfy_table::Table;

use super::{client::Client, failure::Failure, format::Format, show};
use crate::api::views::PlanView;

pub(super) async fn run(client: &Client) -> Result<(), Failure> {
    let plan: PlanView = client.get(&["v1", "plan"], &[]).await?;
    if client.format != Format::Table {
        return show::json(client.format, &plan);
    }
    if is_at_rest(&plan) {
        return show::line("nothing to do: every flow is where it should be");
    }
    if !plan.moves.is_empty() {
        show::print(&moves(&plan))?;
    }
    if plan.held_back > 0 {
        let number = show::count(plan.held_back as usize, "move");
        show::line(format!("waiting for room, until others have left: {number}"))?;
    }
    if !plan.unplaced.is_empty() {
        let mut table = show::table(&["NOT PLACED", "REASON", ""]);
        for u in &plan.unplaced {
            table.add_row([&u.flow, &u.reason.code, &u.reason.detail]);
        }
        show::print(&table)?;
    }
    Ok(())
}

/// True if nothing is to be done, now or later.
fn is_at_rest(plan: &PlanView) -> bool {
    plan.moves.is_empty() && plan.unplaced.is_empty()
}

fn moves(plan: &PlanView) -> Table {
    let mut table = show::table(&["FLOW", "FROM", "TO", "WHY"]);
    for m in &plan.moves {
        let to = m.to.as_deref().unwrap_or("-");
        let to = if m.waits_for_room { format!("{to} (waits for room)") } else { to.to_owned() };
        table.add_row([&m.flow, m.from.as_deref().unwrap_or("-"), &to, &m.why]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(moves: serde_json::Value, held_back: u64) -> PlanView {
        let plan = json!({ "revision": 7, "moves": moves, "unplaced": [], "held_back": held_back });
        serde_json::from_value(plan).unwrap()
    }

    #[test]
    fn a_plan_that_only_waits_for_room_is_something_to_do() {
        let waits = json!([{ "flow": "a", "from": null, "to": "n1", "why": "new", "waits_for_room": true }]);
        assert!(!is_at_rest(&plan(waits, 1)));
        assert!(is_at_rest(&plan(json!([]), 0)));
    }

    #[test]
    fn the_moves_that_wait_for_room_are_marked() {
        let plan = plan(
            json!([
                { "flow": "a", "from": "n2", "to": "n1", "why": "asked", "waits_for_room": false },
                { "flow": "b", "from": null, "to": "n1", "why": "new", "waits_for_room": true },
            ]),
            1,
        );
        let text = moves(&plan).trim_fmt();
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows, [vec!["a", "n2", "n1", "asked"], vec!["b", "-", "n1", "(waits", "for", "room)", "new"]]);
    }
}
