//! The server against a resolver that the test plays.

use std::str::FromStr as _;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;

fn question() -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_str("app.example.").unwrap(), RecordType::TXT));
    message
}

/// A resolver that answers the first question with a text of so many bytes, after an answer with a wrong id.
async fn resolver(text_bytes: usize) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let mut answer = Message::from_vec(&buffer[..length]).unwrap().into_response();
        let texts = (0..text_bytes.div_ceil(200)).map(|_| "x".repeat(200)).collect();
        let name = answer.queries[0].name().clone();
        answer.add_answer(Record::from_rdata(name, 60, RData::TXT(TXT::new(texts))));
        let mut forged = answer.clone();
        forged.metadata.id = forged.metadata.id.wrapping_add(1);
        forged.metadata.response_code = ResponseCode::NXDomain;
        socket.send_to(&forged.to_vec().unwrap(), client).await.unwrap();
        socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
    });
    address
}

async fn ask(server: SocketAddr, query: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(query, server).await.unwrap();
    let mut buffer = [0; 4_096];
    let length =
        tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

/// A server on a free port in front of this resolver.
async fn server(resolver: SocketAddr) -> (Server, SocketAddr) {
    let free = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let upstream = Upstream::new(vec![resolver.ip()], resolver.port());
    (Server::start_at(address, upstream).unwrap(), address)
}

#[tokio::test]
async fn an_answer_must_come_back_with_the_client_s_id_and_a_forged_one_must_not_count() {
    let (_server, address) = server(resolver(10).await).await;
    let query = question();
    let answer = ask(address, &query.to_vec().unwrap()).await;
    assert_eq!(answer.metadata.id, query.metadata.id);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn an_answer_too_long_for_the_client_must_be_truncated() {
    let (_server, address) = server(resolver(1_000).await).await;
    let answer = ask(address, &question().to_vec().unwrap()).await;
    assert!(answer.metadata.truncation);
}

#[tokio::test]
async fn what_is_no_plain_query_must_be_refused() {
    let (_server, address) = server("127.0.0.1:9".parse().unwrap()).await;
    let mut two = question();
    two.add_query(two.queries[0].clone());
    assert_eq!(ask(address, &two.to_vec().unwrap()).await.metadata.response_code, ResponseCode::FormErr);
    let mut update = question();
    update.metadata.op_code = OpCode::Status;
    assert_eq!(ask(address, &update.to_vec().unwrap()).await.metadata.response_code, ResponseCode::NotImp);
    // A resolver that is not there.
    assert_eq!(
        ask(address, &question().to_vec().unwrap()).await.metadata.response_code,
        ResponseCode::ServFail
    );
}
