//! What commands say of nodes that did not answer.

use rejoin_client::admin::Name;

use crate::failure::{Exit, Failure};
use crate::output::note;

/// Their names, each once.
pub(crate) fn silent_names<'a>(silent: impl IntoIterator<Item = &'a (Name, String)>) -> Vec<String> {
    let mut names: Vec<String> = silent.into_iter().map(|(node, _)| node.to_string()).collect();
    names.sort();
    names.dedup();
    names
}

/// Says of each why it could not be asked.
pub(crate) fn tell_silent(silent: &[(Name, String)]) {
    silent.iter().for_each(|(node, why)| note(format!("{node} cannot be asked, and may know of others: {why}")));
}

/// That there is nothing is known only if every node says so.
pub(crate) fn all_answered(silent: &[(Name, String)]) -> Result<(), Failure> {
    match silent {
        [] => Ok(()),
        _ => Err(Failure::new(Exit::Retry, "not every node could be asked").next("run it again later")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_only_if_all_nodes_say_so_and_each_is_named_once() {
        let silent = ["n3", "n1", "n3"].map(|node| (Name::new(node).expect("a name"), "it is down".to_owned()));
        assert_eq!(silent_names(&silent), ["n1", "n3"]);
        assert!(all_answered(&[]).is_ok());
        assert_eq!(all_answered(&silent).expect_err("some are missing").exit, Exit::Retry);
    }
}
