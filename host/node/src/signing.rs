//! Verifies the signature of a plugin that is pushed. The core decides whether the tenant needs one.

use rejoin_proto::catalog::RecordBody;
use rejoin_proto::client::RecordKind;
use rejoin_proto::{ErrorCode, ErrorReply, PluginDigest, PluginSignature, SignerKey};
use rejoin_wire::is_signed;

use crate::caller::Caller;
use crate::context::NodeContext;
use crate::operator;

/// The key that has signed a component for the caller's tenant. `None`: it is not signed, and need not be.
///
/// It is asked before the component is compiled and its laws are checked: what the tenant does not take costs nothing.
/// The catalog decides again when it is added, in case the signers have changed meanwhile.
///
/// # Errors
/// The signature is not of this component and tenant, or the tenant takes only plugins that others have signed.
pub(crate) async fn signer(
    ctx: &NodeContext,
    caller: &Caller,
    digest: &PluginDigest,
    signature: Option<PluginSignature>,
) -> Result<Option<SignerKey>, ErrorReply> {
    let tenant = &caller.tenant_name;
    let rejected = |message| Err(ErrorReply::new(ErrorCode::PluginRejected, message));
    if let Some(signature) = signature.filter(|signature| !is_signed(signature, tenant, digest)) {
        return rejected(format!(
            "the signature is not one of {} on plugin {digest} for tenant {tenant}: `rejoin plugin sign FILE --key KEY \
             --tenant {tenant}` makes one",
            signature.signer
        ));
    }
    let signer = signature.map(|signature| signature.signer);
    let records = operator::records(ctx, RecordKind::Signers, caller.tenant).await.unwrap_or_default();
    let signers = records.into_iter().find_map(|record| match record.body {
        RecordBody::Signers(keys) => Some(keys),
        _ => None,
    });
    let signers = signers.unwrap_or_default();
    if signers.is_empty() || signer.is_some_and(|signer| signers.contains(&signer)) {
        return Ok(signer);
    }
    let keys: Vec<String> = signers.iter().map(ToString::to_string).collect();
    let which = signer.map_or_else(|| "is not signed".to_owned(), |signer| format!("is signed with {signer}"));
    rejected(format!(
        "plugin {digest} {which}, and tenant {tenant} takes only plugins that are signed with {}: `rejoin plugin sign \
         FILE --key KEY --tenant {tenant}` signs one",
        keys.join(" or ")
    ))
}
