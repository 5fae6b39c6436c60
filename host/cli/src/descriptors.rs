//! The limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::output::note;

/// Raises the soft limit of file descriptors to the hard limit. If that fails the process continues with fewer.
pub(crate) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(why) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        note(format!("the limit of file descriptors could not be raised: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_can_be() {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let lowered = current.map_or(4096, |current| current / 2);
        setrlimit(Resource::Nofile, Rlimit { current: Some(lowered), maximum }).expect("a limit can be lowered");
        raise();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
