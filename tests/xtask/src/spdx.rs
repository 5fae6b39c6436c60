//! Licence expressions: `MIT OR Apache-2.0`, `(A OR B) AND C`, `A WITH exception`, and the old `A/B` for OR.

/// Whether `expression` can be satisfied with licences from `allowed` alone.
///
/// # Errors
/// When the expression is not well formed; says where it went wrong.
pub(crate) fn satisfied(expression: &str, allowed: &[String]) -> Result<bool, String> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut parser = Parser { words: spaced.split_whitespace().collect(), at: 0, allowed };
    let verdict = parser.either()?;
    match parser.peek() {
        None => Ok(verdict),
        Some(word) => Err(format!("unexpected `{word}`")),
    }
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    allowed: &'a [String],
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.at += usize::from(found);
        found
    }

    /// `AND` binds tighter than `OR`.
    fn either(&mut self) -> Result<bool, String> {
        let mut verdict = self.both()?;
        while self.take("OR") {
            verdict |= self.both()?;
        }
        Ok(verdict)
    }

    fn both(&mut self) -> Result<bool, String> {
        let mut verdict = self.one()?;
        while self.take("AND") {
            verdict &= self.one()?;
        }
        Ok(verdict)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let verdict = self.either()?;
            return if self.take(")") { Ok(verdict) } else { Err("a parenthesis is not closed".to_owned()) };
        }
        let mut licence = self.name()?.to_owned();
        if self.take("WITH") {
            licence = format!("{licence} WITH {}", self.name()?);
        }
        Ok(self.allowed.contains(&licence))
    }

    fn name(&mut self) -> Result<&'a str, String> {
        let word = self.peek().filter(|word| !["OR", "AND", "WITH", "(", ")"].contains(word));
        self.at += 1;
        word.ok_or_else(|| "a licence is missing".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(expression: &str) -> bool {
        let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        satisfied(expression, &allowed).unwrap()
    }

    #[test]
    fn one_allowed_choice_is_enough_and_every_part_of_an_and_is_needed() {
        assert!(passes("MIT") && passes("GPL-3.0-only OR MIT") && passes("MIT/GPL-2.0") && passes("MIT AND ISC"));
        assert!(!passes("GPL-3.0-only") && !passes("MIT AND GPL-3.0-only"));
        assert!(passes("(GPL-2.0-only OR MIT) AND ISC") && !passes("(GPL-2.0-only OR MIT) AND BSD-1-Clause"));
        assert!(passes("MIT OR GPL-2.0-only AND GPL-3.0-only") && !passes("(MIT OR ISC) AND GPL-3.0-only"));
    }

    #[test]
    fn an_exception_is_part_of_the_licence() {
        assert!(passes("Apache-2.0 WITH LLVM-exception") && !passes("Apache-2.0"));
        assert!(!passes("MIT WITH LLVM-exception"));
    }

    #[test]
    fn a_malformed_expression_is_an_error_not_a_pass() {
        for bad in ["", "MIT OR", "MIT ISC", "(MIT", "MIT)", "AND MIT", "MIT WITH"] {
            assert!(satisfied(bad, &["MIT".to_owned()]).is_err(), "{bad:?}");
        }
    }
}
