//! The command line.

use std::path::PathBuf;

/// The usage text.
pub(crate) const USAGE: &str = "usage: cart-service --profile FILE [--bucket cart] COMMAND
  show USER                  what is in a cart
  add USER ITEM [QUANTITY]   one, or that many
  remove USER ITEM           all of an item
  tour                       two devices, one cart";

/// A parsed command line.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Args {
    pub(crate) profile: PathBuf,
    pub(crate) bucket: String,
    pub(crate) command: Command,
}

/// A command with its arguments.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Show { user: String },
    Add { user: String, item: String, quantity: u32 },
    Remove { user: String, item: String },
    Tour,
}

impl Args {
    /// Parses the arguments after the program's name.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut profile, mut bucket, mut words) = (None, "cart".to_string(), Vec::new());
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--profile" => profile = Some(PathBuf::from(value()?)),
                "--bucket" => bucket = value()?,
                flag if flag.starts_with("--") => return Err(format!("there is no {flag}")),
                _ => words.push(arg),
            }
        }
        let profile = profile.ok_or("--profile FILE is missing: `rejoin dev` writes one")?;
        Ok(Self { profile, bucket, command: Command::parse(&words)? })
    }
}

impl Command {
    fn parse(words: &[String]) -> Result<Self, String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let add = |user: &str, item: &str, quantity| Self::Add { user: user.into(), item: item.into(), quantity };
        match words[..] {
            ["show", user] => Ok(Self::Show { user: user.into() }),
            ["add", user, item] => Ok(add(user, item, 1)),
            ["add", user, item, quantity] => match quantity.parse() {
                Ok(quantity) if quantity > 0 => Ok(add(user, item, quantity)),
                _ => Err(format!("{quantity:?} is no quantity: a whole number from 1")),
            },
            ["remove", user, item] => Ok(Self::Remove { user: user.into(), item: item.into() }),
            ["tour"] => Ok(Self::Tour),
            [] => Err("there is no command".into()),
            _ => Err(format!("{:?} is no command", words.join(" "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn commands_are_understood() {
        let args = parse("--profile p.toml add ann apples 3").unwrap();
        assert_eq!((args.profile, args.bucket.as_str()), (PathBuf::from("p.toml"), "cart"));
        assert_eq!(args.command, Command::Add { user: "ann".into(), item: "apples".into(), quantity: 3 });
        assert_eq!(parse("tour --profile p.toml --bucket b").unwrap().bucket, "b");
    }

    #[test]
    fn mistakes_are_named() {
        for (line, named) in [
            ("show ann", "--profile"),
            ("--profile", "--profile needs"),
            ("--profile p add ann apples none", "\"none\""),
            ("--profile p add ann apples 0", "\"0\""),
            ("--profile p dance", "\"dance\""),
            ("--profile p --fast tour", "--fast"),
        ] {
            let why = parse(line).unwrap_err();
            assert!(why.contains(named), "{line}: {why}");
        }
    }
}
