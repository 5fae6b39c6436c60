//! What `plugin test` says beyond the laws: samples, the small scope, and histories.

use rejoin_merge::Findings;

use crate::failure::{Exit, Failure};
use crate::output::{Output, note};

/// With fewer different samples a test warns.
const FEW_SAMPLES: u32 = 6;

/// Says what was checked beyond single cases, and how much that is worth.
pub(crate) fn tell(findings: &Findings) {
    let samples = findings.samples;
    note(format!(
        "of {} samples {} differ, and the largest has {} bytes",
        samples.drawn, samples.distinct, samples.largest_bytes
    ));
    if samples.distinct < FEW_SAMPLES {
        note(
            "warning: with so few values little can be found; a sampler draws many different ones, and longer ones for \
                a larger `size`",
        );
    }
    if let Some(scope) = findings.small_scope.filter(|scope| scope.of > 0) {
        let end = if scope.values == scope.of {
            String::new()
        } else {
            format!(", of {}: the time for them was over, and --exhaust-time gives it longer", scope.of)
        };
        note(format!("the laws hold for all {} triples of the {} smallest values{end}", scope.triples, scope.values));
    }
    if let Some(Ok(random)) = &findings.convergence
        && random.histories > 0
    {
        note(format!("{} random histories of replicas end alike with and without folds", random.histories));
    }
    if let (Some(Ok(stats)), Some(Ok(classics))) = (&findings.histories, &findings.classics) {
        note(right(stats.histories, stats.operations, *classics));
    }
    if let Some(Ok(scenarios)) = &findings.scenarios {
        note(played(*scenarios));
    }
    note(format!("{} merges were run for this", findings.merges));
}

/// That the histories of an intent ended as they should.
pub(crate) fn right(histories: u64, operations: usize, classics: usize) -> String {
    format!(
        "{histories} histories of operations end as they should, with all of up to {operations} operations on three \
         replicas, and so do {classics} classic ones"
    )
}

/// That the scenarios of an intent ended as they should.
pub(crate) fn played(scenarios: usize) -> String {
    format!("scenarios that end as they should: {scenarios}")
}

/// What to do about a history that ended otherwise than it should.
pub(crate) const ADVICE: &str = "let values carry what their writers had seen, such as a clock and tags, so that the \
    merge can tell a removal from what was never there";

/// Prints the histories that ended otherwise than they should, with their steps.
pub(crate) fn explain_histories(out: Output, wrong: &[String]) {
    if !out.json {
        wrong.iter().for_each(|wrong| note(format!("\n{wrong}")));
    }
}

/// Fails if a history ended otherwise than it should.
pub(crate) fn check_histories(out: Output, findings: &Findings) -> Result<(), Failure> {
    let wrong: Vec<String> = findings.wrong_histories().map(ToString::to_string).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    explain_histories(out, &wrong);
    let what = "the plugin breaks no law, and still a history of operations ends otherwise than it should";
    Err(Failure::new(Exit::Negative, what).next(ADVICE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_merge::laws::ScenarioError;

    const OUT: Output = Output { json: false, color: false };

    #[test]
    fn a_wrong_history_fails_the_test_and_is_in_the_json() {
        assert!(check_histories(OUT, &Findings::default()).is_ok());
        let wrong =
            ScenarioError { scenario: Some("add again"), what: "x is absent".into(), log: vec!["add x".into()] };
        let findings = Findings { classics: Some(Err(wrong)), ..Findings::default() };
        let failure = check_histories(OUT, &findings).expect_err("it is wrong");
        assert!(failure.exit == Exit::Negative && failure.to_string().contains("breaks no law"), "{failure}");
        assert_eq!(findings.wrong_histories().count(), 1);
    }
}
