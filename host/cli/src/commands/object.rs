//! `get`, `put` and `delete`.

use std::io::Read;
use std::path::Path;

use rejoin_client::{Bytes, Context, ErrorKind, NeedsBasis, Object, Write, Written};
use rejoin_wire::utc_text_ms;

use crate::args::{DeleteArgs, GetArgs, PutArgs, WriteArgs};
use crate::commands::json::{GetOutput, Put};
use crate::connect::connect;
use crate::failure::{Exit, Failure, exit_of};
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// Reads a key and prints the value. Unmerged siblings are not printed on stdout and exit with 1, so that a script does
/// not take them for a value: stderr lists them, and `--siblings` or `--json` prints them.
pub(crate) async fn get(global: &GlobalArgs, out: Output, args: &GetArgs) -> Result<(), Failure> {
    let bucket = connect(global).await?.bucket::<Bytes>(&args.bucket)?;
    let mut get = bucket.get(args.key.bytes()).timeout(global.timeout);
    if let Some(r) = args.r {
        get = get.r(r);
    }
    if let Some(pr) = args.pr {
        get = get.pr(pr);
    }
    if args.siblings {
        get = get.siblings();
    }
    if out.json || args.show {
        get = get.show();
    }
    let object = get.await?;
    if out.json {
        out.json(&GetOutput::new(&args.bucket, args.key.bytes(), &object))?;
    } else {
        print(out, &object, args)?;
    }
    if !object.unreachable.is_empty() && !out.json {
        let (nodes, found) = (object.unreachable.join(", "), object.is_found());
        let what = if found { "later writes of this key" } else { "a value of this key" };
        note(format!("{nodes} may hold {what} for its owners, and cannot be reached"));
    }
    if object.value.is_none() && object.is_found() && !args.siblings && !out.json {
        return Err(unmerged(args, &object));
    }
    if object.is_found() { Ok(()) } else { Err(not_found(args, out.json)) }
}

fn not_found(args: &GetArgs, said: bool) -> Failure {
    if said {
        return Failure::silent(Exit::Negative);
    }
    let (bucket, key, typed) = (&args.bucket, args.key.shown(), args.key.typed());
    let value = if std::str::from_utf8(args.key.bytes()).is_ok() { "VALUE" } else { "--value VALUE" };
    Failure::new(Exit::Negative, format!("{bucket}/{key} has no value"))
        .next(format!("`rejoin put {bucket} {typed} {value}` writes one"))
}

fn unmerged(args: &GetArgs, object: &Object<Vec<u8>>) -> Failure {
    let (bucket, key, count) = (&args.bucket, args.key.shown(), object.siblings.len());
    let why = object.merge_fault.as_deref().unwrap_or("the bucket has no plugin");
    let what = format!("{bucket}/{key} has {count} siblings that were not merged ({why})");
    let typed = args.key.typed();
    let next = format!(
        "`rejoin get {bucket} --siblings {typed}` prints them; merge them and put the result with the context above"
    );
    Failure::new(Exit::Negative, what).next(next)
}

fn print(out: Output, object: &Object<Vec<u8>>, args: &GetArgs) -> Result<(), Failure> {
    match (&object.value, &object.shown) {
        (Some(_), Some(shown)) if args.show => out.value(shown.as_bytes())?,
        (Some(_), None) if args.show => {
            let next = format!("`rejoin get {} {}` prints the value itself", args.bucket, args.key.typed());
            return Err(Failure::new(Exit::Negative, "the bucket has no plugin that shows this value").next(next));
        }
        (Some(value), _) if !args.siblings => out.value(value)?,
        _ => siblings(args.siblings.then_some(out), object)?,
    }
    if let Some(by) = &object.merged_by {
        note(format!("merged by {} {}", by.name.as_deref().unwrap_or("a plugin without a name"), by.digest));
    }
    note(format!("context: {}", object.context));
    Ok(())
}

/// Lists the siblings on stderr, and prints each on a line of its own if there is an `out`.
pub(crate) fn siblings(out: Option<Output>, object: &Object<Vec<u8>>) -> Result<(), Failure> {
    let count = object.siblings.len();
    for (index, sibling) in object.siblings.iter().enumerate() {
        let (number, stamp, bytes) = (index + 1, utc_text_ms(sibling.stamp_ms), sibling.value.len());
        note(format!("sibling {number} of {count}, {stamp}, writer {:016x}, {bytes} bytes", sibling.writer));
        if let Some(out) = out {
            out.bytes(&sibling.value)?;
            out.bytes(b"\n")?;
        }
    }
    Ok(())
}

/// A sibling as plugins are given it.
pub(crate) fn plugins_sibling(one: rejoin_client::Sibling<Vec<u8>>) -> rejoin_proto::client::Sibling {
    rejoin_proto::client::Sibling { value: one.value.into(), stamp_ms: one.stamp_ms, writer: one.writer }
}

/// Writes a key.
pub(crate) async fn put(global: &GlobalArgs, out: Output, args: &PutArgs) -> Result<(), Failure> {
    let value = match (&args.literal, &args.value) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, given) => value(given.as_deref().unwrap_or_default())?,
    };
    let basis = Basis::of(&args.write)?;
    let bucket = connect(global).await?.bucket::<Bytes>(&args.bucket)?;
    let mut put = with_options(bucket.put(args.key.bytes(), value), &args.write, global);
    if let Some(ttl) = args.ttl {
        put = put.ttl(ttl);
    }
    let ready = match &basis {
        Basis::Context(context) => put.context(context),
        Basis::Blind => put.blind(),
        Basis::None => put.create(),
    };
    let next = format!(
        "`rejoin get {} {}` gives its context; then `rejoin put … --context CONTEXT`",
        args.bucket,
        args.key.typed()
    );
    finish(out, ready.await, &next)
}

/// Deletes a key.
pub(crate) async fn delete(global: &GlobalArgs, out: Output, args: &DeleteArgs) -> Result<(), Failure> {
    let basis = Basis::of(&args.write)?;
    let next = format!(
        "`rejoin get {} {}` gives its context; then `rejoin delete … --context CONTEXT`",
        args.bucket,
        args.key.typed()
    );
    if matches!(basis, Basis::None) {
        let why =
            "a delete says what it deletes: what a context has seen (--context), or nothing that is there (--blind)";
        return Err(Failure::usage(why).next(next));
    }
    let bucket = connect(global).await?.bucket::<Bytes>(&args.bucket)?;
    let delete = with_options(bucket.delete(args.key.bytes()), &args.write, global);
    let ready = match &basis {
        Basis::Context(context) => delete.context(context),
        Basis::Blind | Basis::None => delete.blind(),
    };
    finish(out, ready.await, &next)
}

enum Basis {
    Context(Context),
    Blind,
    None,
}

impl Basis {
    fn of(args: &WriteArgs) -> Result<Self, Failure> {
        Ok(match &args.context {
            Some(text) => Self::Context(text.parse()?),
            None if args.blind => Self::Blind,
            None => Self::None,
        })
    }
}

fn with_options<S: NeedsBasis>(mut write: Write<S>, args: &WriteArgs, global: &GlobalArgs) -> Write<S> {
    write = write.timeout(global.timeout);
    if let Some(w) = args.w {
        write = write.w(w);
    }
    if let Some(pw) = args.pw {
        write = write.pw(pw);
    }
    write
}

pub(crate) fn finish(out: Output, outcome: rejoin_client::Result<Written>, next: &str) -> Result<(), Failure> {
    match outcome {
        Ok(written) if out.json => out.json(&Put::stored(&written)),
        Ok(written) => {
            note(format!("stored, {} of {} needed acknowledgements", written.acked, written.needed));
            note(format!("context: {}", written.context));
            Ok(())
        }
        Err(error) => {
            if out.json && error.kind() == ErrorKind::Unknown {
                out.json(&Put::unknown(&error))?;
            }
            Err(refused(error, next))
        }
    }
}

fn refused(error: rejoin_client::Error, next: &str) -> Failure {
    match error.kind() {
        ErrorKind::Exists | ErrorKind::BadContext => Failure::new(exit_of(error.kind()), error).next(next),
        _ => error.into(),
    }
}

/// The value: the text itself, the bytes of `@FILE`, or those of stdin for `-`.
pub(crate) fn value(text: &str) -> Result<Vec<u8>, Failure> {
    if text == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .map_err(|why| Failure::usage(format!("stdin cannot be read: {why}")))?;
        return Ok(bytes);
    }
    match text.strip_prefix('@') {
        Some(path) => std::fs::read(path).map_err(|why| Failure::file(Path::new(path), "read", &why)),
        None => Ok(text.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_text_or_the_bytes_of_a_file() {
        assert_eq!(value("v=@x").unwrap(), b"v=@x");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value");
        std::fs::write(&path, b"\x00\xff").unwrap();
        assert_eq!(value(&format!("@{}", path.display())).unwrap(), b"\x00\xff");
        let failure = value("@no/such/file").unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.to_string().contains("no/such/file"), "{failure}");
    }

    #[test]
    fn a_malformed_context_is_refused_before_anything_is_sent() {
        let args = WriteArgs { context: Some("no context!".into()), blind: false, w: None, pw: None };
        assert_eq!(Basis::of(&args).map(|_| ()).unwrap_err().exit, Exit::Usage);
    }
}
