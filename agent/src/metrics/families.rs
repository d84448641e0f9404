//! Builds metric families of numbers that were counted elsewhere (by the kernel, by the edge).

use berth_wire::edge::{LATENCY_BUCKETS_SECONDS, RequestStats};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Labels, in the order in which they are written.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Families, in the order in which they are written.
#[derive(Default)]
pub(super) struct Families(pub(super) Vec<MetricFamily>);

impl Families {
    /// A counter per set of labels.
    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let metrics = values.into_iter().map(|(labels, value)| {
            let mut counter = Counter::default();
            counter.set_value(value);
            let mut metric = Metric::from_label(pairs(labels));
            metric.set_counter(counter);
            metric
        });
        self.push(name, help, MetricType::COUNTER, metrics.collect());
    }

    /// A gauge per set of labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let metrics = values.into_iter().map(|(labels, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = Metric::from_label(pairs(labels));
            metric.set_gauge(gauge);
            metric
        });
        self.push(name, help, MetricType::GAUGE, metrics.collect());
    }

    /// A latency histogram per set of labels.
    pub(super) fn latency<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, &'a RequestStats)>,
    ) {
        let metrics = values.into_iter().map(|(labels, stats)| {
            let mut metric = Metric::from_label(pairs(labels));
            metric.set_histogram(histogram(stats));
            metric
        });
        self.push(name, help, MetricType::HISTOGRAM, metrics.collect());
    }

    /// A family without metrics is left out: the text format has no way to write it.
    fn push(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

fn pairs(labels: Labels) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    labels.into_iter().map(pair).collect()
}

/// The edge counts per bucket; Prometheus wants every bucket to hold those below it, too.
fn histogram(stats: &RequestStats) -> Histogram {
    let mut cumulative = 0;
    let bounds = LATENCY_BUCKETS_SECONDS.into_iter();
    let buckets = bounds.zip(stats.latency_buckets).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(stats.latency_buckets.iter().sum());
    histogram.set_sample_sum(stats.latency_sum_seconds);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_must_be_cumulative_and_the_last_must_count_everything() {
        let mut latency_buckets = [0; 12];
        (latency_buckets[0], latency_buckets[3], latency_buckets[11]) = (1, 2, 4);
        let stats = RequestStats { latency_buckets, latency_sum_seconds: 50.0, ..RequestStats::default() };
        let mut families = Families::default();
        families.latency("x_seconds", "X.", [(vec![("app", "a".to_owned())], &stats)]);
        let text = prometheus::TextEncoder::new().encode_to_string(&families.0).unwrap();
        for line in [
            r#"x_seconds_bucket{app="a",le="0.005"} 1"#,
            r#"x_seconds_bucket{app="a",le="0.05"} 3"#,
            r#"x_seconds_bucket{app="a",le="10"} 3"#,
            r#"x_seconds_bucket{app="a",le="+Inf"} 7"#,
            r#"x_seconds_count{app="a"} 7"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_family_without_metrics_must_be_left_out() {
        let mut families = Families::default();
        families.gauge("x", "X.", []);
        assert!(families.0.is_empty());
    }
}
