//! Messages of containers and of resolvers, looked at: what is a plain query, and what of an answer a client can take. Pure.

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};

/// RFC 6891 6.2.5: what an EDNS client may announce; larger answers go over TCP.
pub const DATAGRAM_BYTES_MAX: usize = 4_096;
/// RFC 1035 4.2.1: what a client without EDNS takes.
pub const DATAGRAM_BYTES_PLAIN: usize = 512;

/// What a message of a container is.
#[derive(Debug)]
pub enum Look {
    /// No query at all: not answered.
    Nothing,
    /// A query of a kind that is not served; the answer to it.
    Refused(Vec<u8>),
    /// One question.
    Asked(Box<Message>),
}

/// Looks at a message.
pub fn look(query: &[u8]) -> Look {
    let Ok(message) = Message::from_vec(query) else { return Look::Nothing };
    if message.metadata.message_type != MessageType::Query {
        return Look::Nothing;
    }
    let code = match message.metadata.op_code {
        OpCode::Query if message.queries.len() == 1 => return Look::Asked(Box::new(message)),
        OpCode::Query => ResponseCode::FormErr,
        _ => ResponseCode::NotImp,
    };
    refusal(&message, code).map_or(Look::Nothing, Look::Refused)
}

/// The answer when no resolver has one.
pub fn failed(question: &Message) -> Option<Vec<u8>> {
    refusal(question, ResponseCode::ServFail)
}

fn refusal(to: &Message, code: ResponseCode) -> Option<Vec<u8>> {
    Message::error_msg(to.metadata.id, to.metadata.op_code, code).to_vec().ok()
}

/// The answer as the client can take it: too long for a datagram, it says so, and the client asks again over TCP.
pub fn fit(answer: Vec<u8>, question: &Message, tcp: bool) -> Option<Vec<u8>> {
    let room = question.edns.as_ref().map_or(DATAGRAM_BYTES_PLAIN, |edns| usize::from(edns.max_payload()));
    if tcp || answer.len() <= room.clamp(DATAGRAM_BYTES_PLAIN, DATAGRAM_BYTES_MAX) {
        return Some(answer);
    }
    Message::from_vec(&answer).ok()?.truncate().to_vec().ok()
}
