//! The routes against a real edge: its table and its socket, in this process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_edge::control::{self, Tables};
use berth_edge::instance::InFlight;
use berth_edge::routes::Choice;
use berth_edge::table_file::TableFile;
use berth_edge::{Edge, Limits, access_log, routes as edge_routes, stats};
use berth_wire::edge::{Backend, Upstream};
use berth_wire::id::{AppId, InstanceId};
use berth_wire::name::Domain;
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{EDGE_ABSENT_MAX, Routes, RoutesStatus};

const PATIENCE: Duration = Duration::from_secs(20);

/// An edge without its listening socket, on threads of its own so that it can end as a killed one does.
struct TestEdge {
    edge: Arc<Edge>,
    runtime: Option<Runtime>,
}

impl Drop for TestEdge {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl TestEdge {
    fn start(dir: &Path) -> Self {
        let edge = Arc::new(Edge {
            routes: edge_routes::Routes::new(1_000),
            log: access_log::AccessLog::start(dir, 1 << 20).unwrap(),
            stats: stats::EdgeCounters::default(),
            limits: Limits::default(),
            tasks: TaskTracker::new(),
        });
        let tables = Arc::new(Tables::start(edge.clone(), TableFile::new(dir)));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _entered = runtime.enter();
            control::bind(dir).unwrap()
        };
        runtime.spawn(control::serve_agents(listener, tables));
        Self { edge, runtime: Some(runtime) }
    }

    /// A request that lasts as long as what is returned.
    fn request(&self, host: &str) -> Option<InFlight> {
        match self.edge.routes.choose(host, None) {
            Choice::Instance(_, in_flight) => Some(in_flight),
            _ => None,
        }
    }
}

fn instance(n: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(n))
}

fn domains(instances: &[u128]) -> BTreeMap<Domain, Backend> {
    let upstream = |n: &u128| Upstream {
        instance: instance(*n),
        process: "web.1".to_owned(),
        address: "127.0.0.1:9".parse().unwrap(),
    };
    let backend = Backend {
        app: AppId(Uuid::from_u128(1)),
        app_name: "shop".parse().unwrap(),
        upstreams: instances.iter().map(upstream).collect(),
        absent: None,
    };
    BTreeMap::from([("shop.localhost".parse().unwrap(), backend)])
}

async fn until(routes: &Routes, what: impl Fn(&RoutesStatus) -> bool) -> RoutesStatus {
    let mut status = routes.status();
    let reached = tokio::time::timeout(PATIENCE, status.wait_for(|status| what(status))).await;
    reached.expect("took too long").unwrap().clone()
}

#[tokio::test]
async fn an_instance_must_be_quiet_once_its_last_request_has_ended() {
    let (edge_dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let edge = TestEdge::start(edge_dir.path());
    let routes = Routes::start(&edge_dir.path().join("edge.sock"), state.path()).unwrap();
    let first = routes.publish(domains(&[1])).unwrap();
    let status = until(&routes, |status| status.acked == first).await;
    assert!(status.serving.contains(&instance(1)) && !routes.is_quiet(instance(1)));
    let request = edge.request("shop.localhost").unwrap();
    let second = routes.publish(domains(&[2])).unwrap();
    until(&routes, |status| status.acked == second && status.retired.contains_key(&instance(1))).await;
    assert!(!routes.is_quiet(instance(1)) && !routes.may_stop(instance(1)));
    drop(request);
    until(&routes, |status| status.retired.is_empty()).await;
    assert!(routes.is_quiet(instance(1)) && routes.may_stop(instance(1)));
    assert!(!routes.may_stop(instance(2)));
    assert_eq!(routes.publish(domains(&[2])).unwrap(), second, "the same domains are the same table");
}

#[tokio::test]
async fn an_agent_that_starts_again_must_be_heard_even_if_it_lost_its_counter() {
    let edge_dir = tempfile::tempdir().unwrap();
    let socket = edge_dir.path().join("edge.sock");
    let edge = TestEdge::start(edge_dir.path());
    let state = tempfile::tempdir().unwrap();
    for (n, state) in [(1, state.path()), (2, state.path()), (3, tempfile::tempdir().unwrap().path())] {
        let routes = Routes::start(&socket, state).unwrap();
        assert!(!routes.is_quiet(instance(9)), "an earlier agent's table may have it");
        routes.publish(domains(&[n])).unwrap();
        until(&routes, |status| status.serving.contains(&instance(n)) && status.acked == status.published)
            .await;
        assert_eq!(edge.request("shop.localhost").unwrap().instance().id, instance(n));
    }
}

#[tokio::test]
async fn an_edge_that_starts_again_must_be_told_and_must_answer_anew() {
    let (edge_dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let socket = edge_dir.path().join("edge.sock");
    let routes = Routes::start(&socket, state.path()).unwrap();
    routes.publish(domains(&[1])).unwrap();
    for n in 2..5 {
        let edge = TestEdge::start(edge_dir.path());
        let number = routes.publish(domains(&[n])).unwrap();
        until(&routes, |status| status.connected && status.acked == number).await;
        assert!(edge.request("shop.localhost").is_some());
        drop(edge);
        until(&routes, |status| !status.connected).await;
        assert!(!routes.is_quiet(instance(99)), "nobody says so now");
    }
}

#[tokio::test]
async fn an_absent_edge_must_not_hold_up_a_stop_for_ever_but_must_hold_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let routes = Routes::start(&dir.path().join("edge.sock"), dir.path()).unwrap();
    routes.publish(domains(&[1])).unwrap();
    routes.publish(domains(&[])).unwrap();
    assert!(!routes.may_stop(instance(1)));
    routes.shared.state().disconnected_since = Instant::now().checked_sub(EDGE_ABSENT_MAX);
    assert!(routes.may_stop(instance(1)));
    assert!(!routes.is_quiet(instance(1)), "the next edge starts from the table on its disk");
    routes.publish(domains(&[1])).unwrap();
    assert!(!routes.may_stop(instance(1)), "it is routed");
}
