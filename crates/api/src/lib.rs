//! What a user interface may know: requests, answers, events, and the client traits.
