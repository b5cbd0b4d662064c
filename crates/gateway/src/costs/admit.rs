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
    // An estimate like the scheduler's; the cost itself is whole numbers.
    let input = house.admission.estimator(plan.ask.class).tokens(&plan.ask.input).ceil() as u64;
    let model = account.model.clone();
    let wanted = Wanted { model: &model, fast: account.fast, input, output_max: request.max_tokens };
    within_budget(house, reply, plan, wanted, account).map_err(Trouble::Budget)
}

/// The same of a request that is passed on and makes models work (a batch, a path that is not known):
/// what it uses is told elsewhere and later, so a budget does not see it; one that is reached, or that
/// takes only what has a price, lets none go.
pub(crate) fn admit_uncounted(
    house: &House,
    reply: &mut Reply<'_>,
    plan: &mut Plan<'_>,
    account: &mut Account,
) -> Result<(), Trouble> {
    let wanted = Wanted { model: "", fast: false, input: 0, output_max: Some(0) };
    within_budget(house, reply, plan, wanted, account).map_err(|refused| match refused {
        Refused::NoPrice => Trouble::Uncounted,
        reached @ Refused::Reached { .. } => Trouble::Budget(reached),
    })
}

fn within_budget(
    house: &House,
    reply: &mut Reply<'_>,
    plan: &mut Plan<'_>,
    wanted: Wanted<'_>,
    account: &mut Account,
) -> Result<(), Refused> {
    let tenant = &plan.caller.tenant;
    let Some(budget) = tenant.budget.as_ref().filter(|_| plan.caller.own.is_none()) else { return Ok(()) };
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
            Err(refused)
        }
    }
}
