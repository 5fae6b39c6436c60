//! What the programs that measure have in common: their start, which leaves nothing behind when they are told to end,
//! and their runs of `rejoin bench`.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

/// How often a run is asked whether it has ended: rare enough not to disturb what it measures.
const POLL: Duration = Duration::from_millis(20);

/// A program that reads its options from the words behind its name, and then does its work. `usage` begins with that
/// name. The exit code is 1 if the work fails or this process is told to end, and 2 if the options cannot be.
pub(crate) async fn program<O>(
    usage: &str,
    parse: impl FnOnce(&[String]) -> Result<O, String>,
    work: impl AsyncFnOnce(O) -> Result<(), String>,
) -> ExitCode {
    let name = usage.split(' ').next().unwrap_or_default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options = match parse(&words) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{name}: {why}\nUsage: {usage}");
            return ExitCode::from(2);
        }
    };
    match unless_interrupted(work(options)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The number that is the value of an option.
///
/// # Errors
/// It is none, or out of bounds.
pub(crate) fn number(option: &str, value: &str, from: u64, to: u64) -> Result<u64, String> {
    let number = value.parse::<u64>().ok().filter(|number| (from..=to).contains(number));
    number.ok_or_else(|| format!("{option} {value}: give a number from {from} to {to}"))
}

/// Does the work, unless this process is told to end by Ctrl-C, SIGTERM or the end of its terminal. The work is dropped
/// then, and everything that it has started and written must go with it.
///
/// # Errors
/// It was told to end, or the system refuses to say so.
async fn unless_interrupted<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let on = |kind| signal(kind).map_err(|why| format!("signals cannot be received: {why}"));
    let mut interrupted = on(SignalKind::interrupt())?;
    let mut terminated = on(SignalKind::terminate())?;
    let mut hung_up = on(SignalKind::hangup())?;
    tokio::select! {
        biased;
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
        _ = hung_up.recv() => {}
        done = work => return done,
    }
    Err("interrupted: what it had started is ended".to_owned())
}

/// The report of a `rejoin bench --json` that ends with one of these codes. Dropped before, the run is ended and waited
/// for, so that the servers and files of a private cluster are gone.
///
/// # Errors
/// It cannot be started, ends in another way, or prints no JSON.
pub(crate) async fn report(command: &mut Command, codes: &[i32]) -> Result<Value, String> {
    let ended = ended(command).await;
    let (status, out, said) = ended.map_err(|why| format!("{command:?} could not be run: {why}"))?;
    let said = String::from_utf8_lossy(&said);
    if !status.code().is_some_and(|code| codes.contains(&code)) {
        return Err(format!("{command:?} failed ({status}): {}", said.trim_end()));
    }
    serde_json::from_slice(&out).map_err(|why| format!("{command:?} gave no JSON ({why}): {}", said.trim_end()))
}

/// Runs a command to its end. Gives what it has written to stdout and to stderr, which go through files without names:
/// no pipe can be full.
async fn ended(command: &mut Command) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (out, said) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(said.try_clone()?);
    let mut run = Run(command.spawn()?);
    let status = loop {
        match run.0.try_wait()? {
            Some(status) => break status,
            None => tokio::time::sleep(POLL).await,
        }
    };
    Ok((status, written(out)?, written(said)?))
}

fn written(mut file: File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A process. Dropped, it is asked to stop, and waited for.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        // One that has ended was waited for, and its id may be that of another process by now.
        if matches!(self.0.try_wait(), Ok(None)) {
            // Fails if it has just ended, which is what is wanted.
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    fn shell(line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        command
    }

    #[tokio::test]
    async fn a_run_gives_its_report_or_says_why_it_has_none() {
        // More than a pipe holds.
        let much = "head -c 200000 /dev/zero | tr '\\0' ' '; echo '{\"rate\": 7}'; exit 4";
        assert_eq!(report(&mut shell(much), &[0, 4]).await.unwrap()["rate"], 7);
        let refused = report(&mut shell("echo no >&2; exit 4"), &[0]).await.unwrap_err();
        assert!(refused.contains("exit status: 4") && refused.ends_with(": no"), "{refused}");
        let silent = report(&mut shell("echo why >&2"), &[0]).await.unwrap_err();
        assert!(silent.contains("gave no JSON") && silent.ends_with(": why"), "{silent}");
        let missing = report(&mut Command::new("no-such-program"), &[0]).await.unwrap_err();
        assert!(missing.contains("no-such-program") && missing.contains("could not be run"), "{missing}");
    }

    #[tokio::test]
    async fn a_run_that_nobody_waits_for_any_more_cleans_up_before_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (begun, cleaned) = (folder.path().join("begun"), folder.path().join("cleaned"));
        let line = format!(
            "trap 'touch {}; exit 1' TERM; touch {}; while :; do sleep 0.01; done",
            cleaned.display(),
            begun.display()
        );
        let mut command = shell(&line);
        tokio::select! {
            ended = report(&mut command, &[0]) => panic!("it goes on for ever: {ended:?}"),
            () = eventually("it has begun", async || begun.exists().then_some(()).ok_or("not yet")) => {}
        }
        assert!(cleaned.exists(), "it was asked to stop, and had the time to");
    }

    #[tokio::test]
    async fn what_is_told_to_end_drops_its_work() {
        assert_eq!(unless_interrupted(async { Ok(3) }).await, Ok(3));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        let work = async move {
            let _folder = folder;
            kill_process(rustix::process::getpid(), Signal::HUP).unwrap();
            std::future::pending::<Result<(), String>>().await
        };
        let interrupted = unless_interrupted(work).await.unwrap_err();
        assert!(interrupted.starts_with("interrupted") && !path.exists(), "{interrupted}");
    }
}
