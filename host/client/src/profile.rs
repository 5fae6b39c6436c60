//! Profiles: seeds, authority and token of a cluster in a file.

use std::path::Path;

use serde::Deserialize;

use crate::{Client, ClientBuilder, Error, ErrorKind, Result, Tls};

/// Seeds, authority and token of a cluster.
///
/// ```
/// use rejoin_client::{Profile, Tls};
///
/// let profile = Profile::new(["127.0.0.1:7401"], Tls::file("ca.pem"), "app:6d2f");
/// let builder = profile.builder();
/// ```
#[derive(Clone)]
pub struct Profile {
    seeds: Vec<String>,
    tls: Tls,
    token: String,
}

/// The TOML form of a profile.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    seeds: Vec<String>,
    ca: String,
    #[serde(default)]
    token: String,
    certificate: Option<String>,
    key: Option<String>,
}

impl Profile {
    /// A profile from its parts.
    ///
    /// ```
    /// use rejoin_client::{Profile, Tls};
    /// let profile = Profile::new(["127.0.0.1:7401", "127.0.0.1:7402"], Tls::file("ca.pem"), "app:6d2f");
    /// ```
    #[must_use]
    pub fn new<S: Into<String>>(seeds: impl IntoIterator<Item = S>, tls: Tls, token: impl Into<String>) -> Self {
        Self { seeds: seeds.into_iter().map(Into::into).collect(), tls, token: token.into() }
    }

    /// Reads a profile from a TOML file:
    ///
    /// ```toml
    /// seeds = ["127.0.0.1:7401", "127.0.0.1:7402"]
    /// ca = "ca.pem"          # relative to this file
    /// token = "app:6d2f"
    /// # certificate = "app.pem" and key = "app-key.pem" show a certificate of the client's own; one of a tenant
    /// # (`rejoin cert client --scope`) takes the place of the token
    /// ```
    ///
    /// ```no_run
    /// let profile = rejoin_client::Profile::load("dev/profile.toml")?;
    /// # Ok::<(), rejoin_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the file cannot be read, is not TOML, or has missing or unknown keys.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = read_file(path)?;
        let bad = |why: toml::de::Error| Error::new(ErrorKind::Config, format!("{}: {why}", path.display()));
        let file: File = toml::from_str(&text).map_err(bad)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let tls = Tls::file(folder.join(file.ca));
        let tls = match (file.certificate, file.key) {
            (Some(certificate), Some(key)) => tls.certificate(folder.join(certificate), folder.join(key)),
            (None, None) => tls,
            _ => {
                let message = format!("{}: certificate and key come together, and one is missing", path.display());
                return Err(Error::new(ErrorKind::Config, message));
            }
        };
        Ok(Self { seeds: file.seeds, tls, token: file.token })
    }

    /// A builder with the seeds, authority and token of this profile.
    ///
    /// ```no_run
    /// # async fn run() -> rejoin_client::Result<()> {
    /// let client = rejoin_client::Profile::load("profile.toml")?.builder().attempts(1).connect().await?;
    /// # Ok(()) }
    /// ```
    pub fn builder(&self) -> ClientBuilder {
        Client::builder().seeds(self.seeds.clone()).tls(self.tls.clone()).token(self.token.clone())
    }

    /// The addresses of the nodes to connect to first.
    ///
    /// ```
    /// # use rejoin_client::{Profile, Tls};
    /// let profile = Profile::new(["127.0.0.1:7401"], Tls::file("ca.pem"), "app:6d2f");
    /// assert_eq!(profile.seeds(), ["127.0.0.1:7401"]);
    /// ```
    #[must_use]
    pub fn seeds(&self) -> &[String] {
        &self.seeds
    }
}

impl std::fmt::Debug for Profile {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile").field("seeds", &self.seeds).field("tls", &self.tls).finish_non_exhaustive()
    }
}

pub(crate) fn read_file(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|why| Error::new(ErrorKind::Config, format!("{} cannot be read: {why}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Profile> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile.toml");
        std::fs::write(&path, text).unwrap();
        Profile::load(path)
    }

    #[test]
    fn a_profile_is_read_and_its_token_is_not_printed() {
        let profile = load("seeds = [\"127.0.0.1:7401\"]\nca = \"ca.pem\"\ntoken = \"app:secret\"\n").unwrap();
        assert_eq!(profile.seeds(), ["127.0.0.1:7401"]);
        let (shown, builder) = (format!("{profile:?}"), format!("{:?}", profile.builder()));
        assert!(shown.contains("ca.pem") && !shown.contains("secret") && !builder.contains("secret"), "{shown}");
    }

    #[test]
    fn a_wrong_key_and_a_missing_file_are_named() {
        let error = load("seeds = []\nca = \"ca.pem\"\ntokens = \"x\"\n").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("tokens"), "{error}");
        let error = load("seeds = []\nca = \"ca.pem\"\ntoken = \"x\"\nkey = \"app.key\"\n").unwrap_err();
        assert!(error.to_string().contains("come together"), "{error}");
        let error = Profile::load("no/such/profile.toml").unwrap_err();
        assert!(error.to_string().contains("no/such/profile.toml"), "{error}");
    }
}
