//! `berth tokens`: list, create and revoke.

use berth_wire::api::{CreatedToken, NewToken, Token};
use berth_wire::id::TokenId;
use reqwest::Method;

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::quantity;
use crate::screen::left;
use crate::session::Session;

/// Arguments of `tokens`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the tokens (the default)
    List,
    /// Create a token; its secret is shown this once
    Create {
        /// What it is for
        name: String,
    },
    /// Revoke a token: it stops working at once
    Revoke {
        /// Its id or its name
        token: String,
    },
}

/// Runs it.
///
/// # Errors
/// As the API has it.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<(), Failure> {
    let client = session.client()?;
    match arguments.verb.unwrap_or(Verb::List) {
        Verb::List => list(session, &client).await,
        Verb::Create { name } => {
            let created: CreatedToken = client.call(Method::POST, "/v1/tokens", &NewToken { name }).await?;
            session.screen.answer(&created, |screen| {
                screen.line(&created.secret);
                screen.note("this is the only time the token is shown; keep it somewhere safe");
            })
        }
        Verb::Revoke { token } => {
            let id = find(&client.get::<Vec<Token>>("/v1/tokens").await?, &token)?;
            client.delete(&format!("/v1/tokens/{id}")).await?;
            session.screen.answer(&serde_json::json!({ "revoked": id }), |screen| {
                screen.line(format!("Revoked {token}."));
            })
        }
    }
}

async fn list(session: &Session<'_>, client: &Client) -> Result<(), Failure> {
    let tokens: Vec<Token> = client.get("/v1/tokens").await?;
    let columns = [left("NAME"), left("CREATED"), left("USED"), left("ID")];
    session.screen.list(&tokens, "No tokens.", &columns, |token, now| {
        let used = token.used_at.map_or_else(|| "never".into(), |at| quantity::ago(at, now));
        vec![token.name.clone(), quantity::ago(token.created_at, now), used, token.id.to_string()]
    })
}

/// By id, or by a name that only one has.
fn find(tokens: &[Token], wanted: &str) -> Result<TokenId, Failure> {
    let named: Vec<&Token> =
        tokens.iter().filter(|token| token.name == wanted || token.id.to_string() == wanted).collect();
    match named.as_slice() {
        [one] => Ok(one.id),
        [] => Err(Failure::new(
            Exit::NotFound,
            format!("There is no token {wanted}; `berth tokens` lists them"),
        )),
        _ => Err(Failure::usage(format!("{} tokens are called {wanted}; give the id", named.len()))),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_name_that_two_tokens_have_must_not_revoke_either() {
        let token = |id: u128, name: &str| Token {
            id: TokenId(uuid::Uuid::from_u128(id)),
            name: name.into(),
            created_at: Timestamp::UNIX_EPOCH,
            used_at: None,
        };
        let tokens = [token(1, "ci"), token(2, "ci"), token(3, "laptop")];
        assert_eq!(find(&tokens, "laptop").unwrap(), tokens[2].id);
        assert_eq!(find(&tokens, &tokens[0].id.to_string()).unwrap(), tokens[0].id);
        assert_eq!(find(&tokens, "ci").unwrap_err().exit, Exit::Usage);
        assert_eq!(find(&tokens, "x").unwrap_err().exit, Exit::NotFound);
    }
}
