//! A tenant's budget, asked before a request waits for its place.

use crate::answer::Trouble;
use crate::house::House;
use crate::plan::Plan;
use crate::reply::Reply;
use crate::settle::Account;
use tidegate_observe::{Refused, Wanted};
use tidegate_schedule::Band;
use tidegate_wire::request::MessagesRequest;

/// Lets a request go, sends it to the background, or refuses it. What it holds of the budget is in
/// its account until it is settled. Who brings an upstream credential of their own pays themselves.
pub(crate) fn admit(
    house: &House,
    reply: &mut Reply<'_>,
    plan: &mut Plan<'_>,
    request: &MessagesRequest,
    account: &mut Account,
) -> Result<(), Trouble> {
    account.costs = true;
    let tenant = &plan.caller.tenant;
    let Some(budget) = tenant.budget.as_ref().filter(|_| plan.caller.own.is_none()) else { return Ok(()) };
    // An estimate like the scheduler's; the cost itself is whole numbers.
    let input = house.admission.estimator(plan.ask.class).tokens(&plan.ask.input).ceil() as u64;
    let wanted = Wanted { model: &account.model, fast: account.fast, input, output_max: request.max_tokens };
    match house.costs.ledger.admit(house.costs.now_s(), &tenant.name, budget, wanted) {
        Ok(admitted) => {
            if admitted.background {
                house.metrics.budget_action(&tenant.name, "queued");
                plan.ask.band = Band::Background;
                account.band = Some(Band::Background.name());
            }
            reply.budget_spent = admitted.warned;
            account.reservation = Some(admitted.reservation);
            Ok(())
        }
        Err(refused) => {
            let action = match refused {
                Refused::Reached { .. } => "refused",
                Refused::NoPrice => "refused_unpriced",
            };
            house.metrics.budget_action(&tenant.name, action);
            Err(Trouble::Budget(refused))
        }
    }
}
