//! Which control plane, which token, which app: decided once per command from flags, environment, git remote
//! and credentials file, in this order.

use berth_wire::name::AppName;
use reqwest::Url;

use crate::client::Client;
use crate::credentials::{self, Credentials, server_key};
use crate::failure::{Exit, Failure};
use crate::git::{self, Remote};
use crate::screen::Screen;

/// What every command gets.
pub struct Session<'a> {
    /// Where results go.
    pub screen: &'a Screen,
    /// `--app`, or `BERTH_APP`.
    app: Option<AppName>,
    /// `BERTH_URL`.
    url: Option<Url>,
    /// `BERTH_TOKEN`.
    token: Option<String>,
    /// The git remote of the current folder.
    remote: Option<Remote>,
}

impl<'a> Session<'a> {
    /// From the flags; reads the environment and the git remote.
    ///
    /// # Errors
    /// `BERTH_URL` is no URL.
    pub fn new(screen: &'a Screen, app: Option<AppName>) -> Result<Self, Failure> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = variable("BERTH_URL").map(|text| parse_url(&text)).transpose()?;
        Ok(Self { screen, app, url, token: variable("BERTH_TOKEN"), remote: git::remote() })
    }

    /// The control plane and the token to use there; no token if none is known.
    ///
    /// # Errors
    /// Nothing says which control plane.
    pub fn server(&self) -> Result<(Url, Option<String>), Failure> {
        let credentials = Credentials::load(&credentials::path()?)?;
        choose_server(self.url.as_ref(), self.token.as_deref(), self.remote.as_ref(), &credentials)
    }

    /// A client that is signed in.
    ///
    /// # Errors
    /// No control plane or no token is known.
    pub fn client(&self) -> Result<Client, Failure> {
        let (url, token) = self.server()?;
        if token.is_none() {
            return Err(not_signed_in(&format!("There is no token for {}", server_key(&url))));
        }
        Client::new(url, token)
    }

    /// The app a command is about.
    ///
    /// # Errors
    /// Nothing says which.
    pub fn app(&self) -> Result<AppName, Failure> {
        self.app.clone().or_else(|| self.remote.as_ref().map(|remote| remote.app.clone())).ok_or_else(|| {
            Failure::usage(
                "Which app? Name it with --app NAME or BERTH_APP, or run this in a repository with a git \
                 remote called berth (`berth apps create` makes one)",
            )
        })
    }
}

/// Reads what a person gave as a control plane's URL.
///
/// # Errors
/// It is none.
pub fn parse_url(text: &str) -> Result<Url, Failure> {
    let bad = || Failure::usage(format!("{text:?} is no URL of a control plane; write http://HOST:PORT"));
    let mut url = Url::parse(text).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(bad());
    }
    url.set_path("/");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

fn not_signed_in(why: &str) -> Failure {
    Failure::new(
        Exit::Refused,
        format!("{why}; sign in with `berth login URL`, or set BERTH_URL and BERTH_TOKEN"),
    )
    .with_code(berth_wire::code::Code::A10)
}

fn choose_server(
    url: Option<&Url>,
    token: Option<&str>,
    remote: Option<&Remote>,
    credentials: &Credentials,
) -> Result<(Url, Option<String>), Failure> {
    let known = |url: &Url| credentials.servers.get(&server_key(url)).map(|server| server.token.clone());
    if let Some(url) = url {
        return Ok((url.clone(), token.map(str::to_owned).or_else(|| known(url))));
    }
    if let Some(server) = remote.map(|remote| &remote.server)
        && let Some(stored) = known(server)
    {
        return Ok((server.clone(), Some(stored)));
    }
    match &credentials.current {
        // A token from the environment belongs to BERTH_URL and is not sent anywhere else.
        Some(current) => parse_url(current).map(|url| (url.clone(), known(&url))),
        None => Err(not_signed_in("No control plane is known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Server;

    fn stored() -> Credentials {
        let mut stored = Credentials { current: Some("http://here:1".into()), ..Credentials::default() };
        for (url, token) in [("http://here:1", "h"), ("http://there:2", "t")] {
            stored.servers.insert(url.into(), Server { token: token.into() });
        }
        stored
    }

    fn chosen(url: Option<&str>, token: Option<&str>, remote: Option<&str>) -> (String, Option<String>) {
        let url = url.map(|text| parse_url(text).unwrap());
        let remote = remote.map(|text| git::parse_remote(text).unwrap());
        let (url, token) = choose_server(url.as_ref(), token, remote.as_ref(), &stored()).unwrap();
        (server_key(&url), token)
    }

    #[test]
    fn the_environment_must_come_before_the_remote_and_that_before_the_file() {
        let there = Some("http://there:2/git/x.git");
        assert_eq!(chosen(Some("http://env:3"), Some("e"), there), ("http://env:3".into(), Some("e".into())));
        assert_eq!(chosen(Some("http://here:1"), None, there), ("http://here:1".into(), Some("h".into())));
        assert_eq!(chosen(None, None, there), ("http://there:2".into(), Some("t".into())));
        assert_eq!(
            chosen(None, None, Some("http://no:1/git/x.git")),
            ("http://here:1".into(), Some("h".into()))
        );
    }

    #[test]
    fn a_token_of_the_environment_must_not_go_to_another_server() {
        assert_eq!(chosen(None, Some("e"), None), ("http://here:1".into(), Some("h".into())));
    }

    #[test]
    fn not_signed_in_must_say_what_to_do() {
        let failure = choose_server(None, None, None, &Credentials::default()).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.message.contains("berth login"));
    }
}
