//! `tenure plan`: what the planner would do now.

use super::{client::Client, failure::Failure, format::Format, show};
use crate::api::views::PlanView;

pub(super) async fn run(client: &Client) -> Result<(), Failure> {
    let plan: PlanView = client.get(&["v1", "plan"], &[]).await?;
    if client.format != Format::Table {
        return show::json(client.format, &plan);
    }
    if plan.moves.is_empty() && plan.unplaced.is_empty() {
        return show::line("nothing to do: every flow is where it should be");
    }
    if !plan.moves.is_empty() {
        let mut table = show::table(&["FLOW", "FROM", "TO", "WHY"]);
        for m in &plan.moves {
            table.add_row([&m.flow, m.from.as_deref().unwrap_or("-"), m.to.as_deref().unwrap_or("-"), &m.why]);
        }
        show::print(&table)?;
    }
    if plan.held_back > 0 {
        show::line(format!("and {} later: they wait for their turn", show::count(plan.held_back as usize, "move")))?;
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
