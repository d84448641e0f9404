//! What a bench prints: one JSON object on one line. Each figure is a cost; a ratio is ours divided by theirs, of the first figure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Figures by name, the first of which is compared.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(transparent)]
pub struct Figures(Vec<(&'static str, f64)>);

/// A peer that could not run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub peer: String,
    /// Why.
    pub reason: String,
}

/// All of it.
#[derive(Debug)]
pub struct Report {
    /// The bench.
    pub name: &'static str,
    /// How many were measured of ours.
    pub runs: usize,
    /// Ours.
    pub ours: Figures,
    /// The peers'.
    pub peers: BTreeMap<String, Figures>,
    /// Those that could not run.
    pub missing: Vec<Missing>,
}

impl Figures {
    /// Adds one.
    pub fn with(mut self, name: &'static str, figure: f64) -> Self {
        self.0.push((name, rounded(figure)));
        self
    }

    fn first(&self) -> f64 {
        self.0.first().map_or(f64::NAN, |(_, figure)| *figure)
    }

    fn value(&self) -> Value {
        self.0
            .iter()
            .map(|(name, figure)| ((*name).to_owned(), Value::from(*figure)))
            .collect::<Map<_, _>>()
            .into()
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

/// The value below which this share (in hundredths) of the figures is.
pub fn percentile(figures: &[f64], share: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * share / 100).copied().unwrap_or(f64::NAN)
}

impl Report {
    /// As it is printed.
    pub fn line(&self) -> String {
        let by_peer = |of: &dyn Fn(&Figures) -> Value| {
            self.peers.iter().map(|(key, figures)| (key.clone(), of(figures))).collect::<Map<_, _>>()
        };
        serde_json::json!({
            "name": self.name,
            "runs": self.runs,
            "ours": self.ours.value(),
            "peers": by_peer(&Figures::value),
            "ratios": by_peer(&|figures| rounded(self.ours.first() / figures.first()).into()),
            "missing": self.missing,
        })
        .to_string()
    }
}
