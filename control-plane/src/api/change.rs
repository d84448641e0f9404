//! A change of what an app stands on (config vars, formation): it makes a release; before the first image it waits for
//! that. What may be changed into what is in `domain/`; other changes that make releases are in `releases.rs`.

use berth_wire::api::Change;
use berth_wire::name::AppName;
use http::StatusCode;
use sqlx::{Sqlite, SqliteConnection, Transaction};

use super::extract::find_app;
use super::problem::ApiError;
use super::releases::{make, no_image};
use crate::app::App;
use crate::domain::formation::Formation;
use crate::domain::release::{Beginnings, ConfigVars, Content, Why};
use crate::store::apps::AppRow;
use crate::store::tokens::Bearer;
use crate::store::{StoreError, apps, releases};

/// The answer to a change that can be.
pub type Accepted = (StatusCode, axum::Json<Change>);

/// What an app stands on: its newest release or, before the first, what was chosen for that.
pub struct Standing {
    row: AppRow,
    head: Option<Content>,
    beginnings: Beginnings,
}

impl Standing {
    /// What the caller's app of that name stands on.
    ///
    /// # Errors
    /// A12, or the store failed.
    pub async fn find(
        app: &App,
        conn: &mut SqliteConnection,
        caller: &Bearer,
        name: &AppName,
    ) -> Result<Self, ApiError> {
        let row = find_app(conn, caller, name).await?;
        let head = releases::head_find(&app.store, conn, row.id).await?.map(|head| head.content);
        let beginnings = apps::beginnings_find(&app.store, conn, row.id).await?;
        Ok(Self { row, head, beginnings })
    }

    /// The content of its newest release.
    pub fn head(&self) -> Option<&Content> {
        self.head.as_ref()
    }

    /// Its config vars.
    pub fn config(&self) -> &ConfigVars {
        self.head.as_ref().map_or(&self.beginnings.config, |head| &head.config)
    }

    /// Its formation.
    pub fn formation(&self) -> &Formation {
        self.head.as_ref().map_or(&self.beginnings.formation, |head| &head.formation)
    }

    /// Changes it, commits, and wakes the planner.
    ///
    /// # Errors
    /// The store failed, or the change needs an image and there is none.
    pub async fn change(
        mut self,
        app: &App,
        mut tx: Transaction<'static, Sqlite>,
        why: Why,
        caller: &Bearer,
    ) -> Result<Accepted, ApiError> {
        let (status, change) = if self.head.is_some() {
            let change = make(app, &mut tx, &self.row, why, caller).await?;
            (StatusCode::ACCEPTED, change.ok_or_else(|| no_image(&self.row))?)
        } else {
            let description = match why {
                Why::Config { config, description } => {
                    self.beginnings.config = config;
                    description
                }
                Why::Scale { formation, description } => {
                    self.beginnings.formation = formation;
                    description
                }
                _ => return Err(no_image(&self.row)),
            };
            apps::beginnings_put(&app.store, &mut tx, self.row.id, &self.beginnings).await?;
            let message = format!("{description}; the first release will have it");
            (StatusCode::OK, Change { release: None, message })
        };
        tx.commit().await.map_err(StoreError::from)?;
        app.wakes.plan();
        Ok((status, axum::Json(change)))
    }
}

/// The answer to a change that changes nothing.
pub fn unchanged(what: &str) -> Accepted {
    let message = format!("{what} already; nothing was changed");
    (StatusCode::OK, axum::Json(Change { release: None, message }))
}
