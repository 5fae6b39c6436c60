//! The script that takes a stranger from an empty directory to a plugin that a cluster runs.

use std::process::{Command, Stdio};

use rejoin_test_cluster::{binary, guests::workspace};

#[test]
fn a_first_plugin_is_written_tried_used_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("bash");
    command.arg(workspace().join("examples/write-a-plugin/run.sh"));
    // What the plugin needs was downloaded for the plugins of the tree.
    command.env("REJOIN", binary()).env("OFFLINE", "1").env("TMPDIR", dir.path());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, talk) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{talk}");
    for step in ["plugin new", "plugin bench", "plugin push", "plugin activate", "plugin rollback", "conflict resolve"]
    {
        let timed = |line: &str| line.starts_with(step) && line.ends_with(" s");
        assert!(out.lines().any(timed), "{step} has no time in\n{out}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
}
