//! `apply` and `query`: operations of a plugin's data type, and questions to it.

use serde::Serialize;

use rejoin_client::Bytes;

use crate::commands::object::{finish, value};
use crate::connect::connect;
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::operation_args::{ApplyArgs, QueryArgs};
use crate::output::Output;

/// Has the bucket's plugin apply an operation to a key.
pub(crate) async fn apply(global: &GlobalArgs, out: Output, args: &ApplyArgs) -> Result<(), Failure> {
    let operation = given(args.literal.as_deref(), args.operation.as_deref())?;
    let bucket = connect(global).await?.bucket::<Bytes>(&args.bucket)?;
    let mut apply = bucket.apply(args.key.bytes(), operation).timeout(global.timeout);
    if let Some(w) = args.w {
        apply = apply.w(w);
    }
    if let Some(pw) = args.pw {
        apply = apply.pw(pw);
    }
    let next = format!("`rejoin get {} {}` shows what it is now", args.bucket, args.key.typed());
    finish(out, apply.await, &next)
}

/// The answer of a question.
#[derive(Serialize)]
struct Answer<'a> {
    found: bool,
    /// `None` if it is not UTF-8.
    answer: Option<&'a str>,
    answer_base64: Option<String>,
}

/// Asks the bucket's plugin about the value of a key.
pub(crate) async fn query(global: &GlobalArgs, out: Output, args: &QueryArgs) -> Result<(), Failure> {
    use base64::Engine as _;
    let question = given(args.literal.as_deref(), args.question.as_deref())?;
    let bucket = connect(global).await?.bucket::<Bytes>(&args.bucket)?;
    let mut query = bucket.query(args.key.bytes(), question).timeout(global.timeout);
    if let Some(r) = args.r {
        query = query.r(r);
    }
    if let Some(pr) = args.pr {
        query = query.pr(pr);
    }
    let answer = query.await?;
    if out.json {
        let text = answer.as_deref().and_then(|answer| std::str::from_utf8(answer).ok());
        let base64 = answer.as_deref().map(|answer| base64::engine::general_purpose::STANDARD.encode(answer));
        out.json(&Answer { found: answer.is_some(), answer: text, answer_base64: base64 })?;
    }
    match answer {
        Some(_) if out.json => Ok(()),
        Some(answer) => out.value(&answer),
        None if out.json => Err(Failure::silent(Exit::Negative)),
        None => {
            let (bucket, key) = (&args.bucket, args.key.shown());
            let next = format!("`rejoin apply {bucket} {} OPERATION` makes one", args.key.typed());
            Err(Failure::new(Exit::Negative, format!("{bucket}/{key} has no value")).next(next))
        }
    }
}

fn given(literal: Option<&str>, text: Option<&str>) -> Result<Vec<u8>, Failure> {
    match (literal, text) {
        (Some(literal), _) => Ok(literal.as_bytes().to_vec()),
        (None, text) => value(text.unwrap_or_default()),
    }
}
