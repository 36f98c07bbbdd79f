//! What is done once enough people agreed: one function an action, the same that the verb calls where one is enough.

use super::approvals::Grant;
use super::operations::Operations;
use super::refused::Refused;
use super::{destroy, subjects};
use crate::binding::AccountId;
use crate::store::ApprovedAction;
use crate::telemetry::Actor;

/// Does what was agreed to.
///
/// Returns what is not done everywhere yet, a line each.
///
/// # Errors
/// Whatever the verb itself would answer; the approval stays open unless it can never be carried out.
pub(super) async fn carry_out(
    ops: &Operations,
    action: ApprovedAction,
    object: &str,
    grant: Grant,
    by: Actor,
) -> Result<Vec<String>, Refused> {
    match action {
        ApprovedAction::DestroyKey => {
            destroy::destroy(ops, object, grant, by).await.map(|destroyed| destroyed.key.warnings)
        }
        ApprovedAction::HoldSubject | ApprovedAction::ReleaseSubject => {
            // What stands for an account that was erased is none; the approval ended with the account.
            let account = AccountId::parse(object).map_err(|_| Refused::NotFound)?;
            subjects::change_hold(ops, action, &account, grant, by).await.map(|()| Vec::new())
        }
    }
}
