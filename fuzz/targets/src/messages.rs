//! Documents between the daemons and packets of containers: DNS, the edge's table, specs and reports, tables of the kernel's text.

use std::collections::BTreeSet;
use std::time::Instant;

use berth_agent::health::sockets;
use berth_agent::network::dns::message::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_PLAIN, Look, failed, fit, look};
use berth_edge::routes::Routes;
use berth_wire::edge::{FromEdge, Table, ToEdge};
use berth_wire::quota::Quota;
use berth_wire::report::Report;
use berth_wire::session::Session;
use berth_wire::spec::Spec;
use hickory_proto::op::{Message, MessageType};

use crate::{Target, target, texts};

pub const TARGETS: &[Target] = &[
    target("dns", dns, queries),
    target("edge-table", edge_table, tables),
    target("wire", wire, documents),
    target("sockets", kernel_sockets, socket_tables),
];

fn dns(input: &[u8]) {
    match look(input) {
        Look::Nothing => {}
        Look::Refused(answer) => check_answer(&answer, input),
        Look::Asked(question) => {
            assert_eq!(question.queries.len(), 1);
            check_answer(&failed(&question).unwrap(), input);
            // The resolver is somebody else, too: anything may come as an answer.
            for tcp in [false, true] {
                if let Some(answer) = fit(input.to_vec(), &question, tcp) {
                    let room = if tcp { usize::MAX } else { DATAGRAM_BYTES_MAX };
                    assert!(answer.len() <= room || answer.len() <= input.len());
                }
                let mut long = input.to_vec();
                long.resize(DATAGRAM_BYTES_MAX + 1, 0);
                if let Some(answer) = fit(long, &question, false) {
                    assert!(answer.len() <= DATAGRAM_BYTES_MAX.max(DATAGRAM_BYTES_PLAIN));
                }
            }
        }
    }
}

/// It is one, with the client's id, and no larger than a datagram that anybody takes.
fn check_answer(answer: &[u8], query: &[u8]) {
    assert_eq!(answer[..2], query[..2]);
    assert!(answer.len() <= DATAGRAM_BYTES_PLAIN);
    assert_eq!(Message::from_vec(answer).unwrap().metadata.message_type, MessageType::Response);
}

fn edge_table(input: &[u8]) {
    let _ = serde_json::from_slice::<FromEdge>(input);
    let table = serde_json::from_slice::<Table>(input);
    let table = match (table, serde_json::from_slice::<ToEdge>(input)) {
        (Ok(table), _) | (_, Ok(ToEdge::Table(table))) => table,
        _ => return,
    };
    let again = serde_json::to_vec(&table).unwrap();
    assert_eq!(serde_json::from_slice::<Table>(&again).unwrap(), table);
    let routes = Routes::new(10);
    if table.number > 0 {
        assert_eq!(routes.swap(table.clone(), Instant::now()).ok(), Some(true));
        assert_eq!(routes.swap(table.clone(), Instant::now()).ok(), Some(false));
        assert_eq!(routes.table(), table);
        for domain in table.domains.keys() {
            let _ = routes.choose(domain.as_str(), None);
        }
    }
}

fn wire(input: &[u8]) {
    fn round<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(input: &[u8]) {
        let Ok(value) = serde_json::from_slice::<T>(input) else { return };
        let again = serde_json::to_vec(&value).unwrap();
        assert_eq!(serde_json::from_slice::<T>(&again).unwrap(), value);
    }
    round::<Spec>(input);
    round::<Report>(input);
    round::<Session>(input);
    if let Ok(quota) = serde_json::from_slice::<Quota>(input) {
        round::<Quota>(input);
        if let Err(refused) = quota.check() {
            assert!(refused.to_string().len() < 300);
        }
        let _ = quota.stated();
    }
}

fn kernel_sockets(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let found: BTreeSet<_> = sockets::parse(&text);
    assert!(found.len() <= text.lines().count());
}

fn queries() -> Vec<Vec<u8>> {
    let query = |kind: u8| {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(b"\x03app\x07example\x00");
        bytes.extend([0, kind, 0, 1]);
        bytes
    };
    let mut with_edns = query(1);
    with_edns[11] = 1;
    with_edns.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    let mut pointing = query(16);
    pointing[12..14].copy_from_slice(&[0xc0, 12]);
    let mut answer = query(1);
    (answer[2], answer[7]) = (0x81, 1);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
    let mut update = query(6);
    update[2] = 0x28;
    vec![query(1), query(28), with_edns, pointing, answer, update]
}

fn tables() -> Vec<Vec<u8>> {
    let table = r#"{"number": 3, "domains": {"shop.localhost": {"app": "00000000-0000-0000-0000-000000000001", "app_name": "shop",
        "upstreams": [{"instance": "00000000-0000-0000-0000-000000000002", "process": "web.1", "address": "198.18.0.2:8080"}], "absent": "H14"}}}"#;
    texts(&[table, r#"{"from": "ack", "number": 1}"#])
}

fn documents() -> Vec<Vec<u8>> {
    let quota = serde_json::to_vec(&Quota::default()).unwrap();
    let report = r#"{"spec": null, "instances": [], "events": []}"#.as_bytes().to_vec();
    vec![
        quota,
        report,
        br#"{"epoch": "00000000-0000-0000-0000-000000000001", "number": 1, "instances": [], "routes": {}}"#
            .to_vec(),
    ]
}

fn socket_tables() -> Vec<Vec<u8>> {
    texts(&[
        "  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n   1: 00000000000000000000000001000000:0050 0:0 0A\n",
    ])
}
