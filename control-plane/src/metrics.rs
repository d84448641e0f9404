//! `/metrics` of the control plane itself: requests, planning, and what the store holds. What instances use is in the
//! metrics of their hosts' agents.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::access::ApiCaller;
use crate::api::problem::ApiError;
use crate::app::App;
use crate::store::{census, hosts};

/// The text format's media type.
pub const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is counted as it happens.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    plans: IntCounterVec,
    plan_seconds: HistogramVec,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// Two metrics have one name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new("berthd_http_requests_total", "Requests answered, by route and status."),
                &["method", "route", "status"],
            )?,
            request_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "berthd_http_request_duration_seconds",
                    "Time until a request's response began; long polls included.",
                ),
                &["route"],
            )?,
            plans: IntCounterVec::new(
                Opts::new("berthd_plans_total", "Times the planner looked, by outcome."),
                &["outcome"],
            )?,
            plan_seconds: HistogramVec::new(
                HistogramOpts::new("berthd_plan_duration_seconds", "Time to load, plan and store.")
                    .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]),
                &[],
            )?,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.request_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.plans.clone()))?;
        metrics.registry.register(Box::new(metrics.plan_seconds.clone()))?;
        Ok(metrics)
    }

    /// The planner looked.
    pub fn planned(&self, took: Duration, well: bool) {
        self.plans.with_label_values(&[if well { "ok" } else { "error" }]).inc();
        let none: &[&str] = &[];
        self.plan_seconds.with_label_values(none).observe(took.as_secs_f64());
    }
}

/// The layer that counts requests. Routes by their pattern: a path would make one series per app.
pub async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |p| p.as_str().to_owned());
    // Any token is a method (RFC 9110 9.1); only those known become a label.
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
    let method = known.iter().copied().find(|m| *m == request.method().as_str()).unwrap_or("other");
    let timer = app.metrics.request_seconds.with_label_values(&[route.as_str()]).start_timer();
    let response = next.run(request).await;
    timer.observe_duration();
    app.metrics.requests.with_label_values(&[method, &route, response.status().as_str()]).inc();
    response
}

/// Everything in Prometheus' text format.
pub async fn show(State(app): State<App>, _: ApiCaller) -> Result<Response, ApiError> {
    let mut families = app.metrics.registry.gather();
    families.extend(census_registry(&app).await?.gather());
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).map_err(|e| ApiError::internal(&e))?;
    Ok(([(CONTENT_TYPE, CONTENT)], text).into_response())
}

/// What the store holds at this moment: counted anew for each scrape, so it is never wrong.
async fn census_registry(app: &App) -> Result<Registry, ApiError> {
    let mut conn = app.store.read().await?;
    let census = census::take(&mut conn).await?;
    let hosts = hosts::list(&mut conn).await?;
    drop(conn);
    let internal = |e: prometheus::Error| ApiError::internal(&e);
    let registry = Registry::new();
    let grouped = [
        ("berthd_apps", "Apps.", "state", &census.apps),
        ("berthd_releases", "Releases kept, by status.", "status", &census.releases),
        ("berthd_builds", "Builds kept, by status.", "status", &census.builds),
        (
            "berthd_instances",
            "Instances placed, by what should be true of them.",
            "desired",
            &census.instances,
        ),
    ];
    for (name, help, label, counts) in grouped {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &[label]).map_err(internal)?;
        for (value, count) in counts {
            gauge.with_label_values(&[value.as_str()]).set(*count);
        }
        registry.register(Box::new(gauge)).map_err(internal)?;
    }
    let up = IntGaugeVec::new(Opts::new("berthd_host_up", "1 if the host reported lately."), &["host"])
        .map_err(internal)?;
    let seen = IntGaugeVec::new(
        Opts::new("berthd_host_last_report_timestamp_seconds", "When the host last reported."),
        &["host"],
    )
    .map_err(internal)?;
    for host in &hosts {
        up.with_label_values(&[host.name.as_str()]).set(i64::from(host.is_up(app.clock.now())));
        if let Some(at) = host.seen_at {
            seen.with_label_values(&[host.name.as_str()]).set(at.as_second());
        }
    }
    registry.register(Box::new(up)).map_err(internal)?;
    registry.register(Box::new(seen)).map_err(internal)?;
    let info = Opts::new("berthd_build_info", "Always 1; the version is a label.")
        .const_label("version", env!("CARGO_PKG_VERSION"));
    let info = IntGauge::with_opts(info).map_err(internal)?;
    info.set(1);
    registry.register(Box::new(info)).map_err(internal)?;
    Ok(registry)
}
