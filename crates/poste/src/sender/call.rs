//! Calls: the sender's side of a question and its answer.

use super::posting::Post;
use super::refusal::refuse;
use super::{Level, Sender};
use crate::answers::Answers;
use crate::envelope::CallBlock;
use crate::error::Error;
use crate::message::OwnedMessage;
use crate::outgoing::Outgoing;
use crate::wait::Wait;

impl Sender {
    /// Sends a message and waits for the answer to it, both within `wait`. One call at a time: an
    /// answer that comes after its call was given up is passed over.
    ///
    /// ```
    /// use std::time::Duration;
    /// use poste::{Receiver, Sender, Wait};
    /// # fn main() -> Result<(), poste::Error> {
    /// # let address = format!("unix:@poste-call-{}", std::process::id());
    /// let mut server = Receiver::create(&address)?;
    /// std::thread::spawn(move || {
    ///     let mut question = server.recv()?;
    ///     let answer = format!("{}, too", question.text()?);
    ///     question.reply(&answer)
    /// });
    /// let mut client = Sender::open(&address)?;
    /// let answer = client.call("hello", Wait::For(Duration::from_secs(5)))?;
    /// assert_eq!(answer.text()?, "hello, too");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `TimedOut` where no answer came in time (the message may have been received); `Failed` with
    /// the text that the other side answered; `Disconnected` where it is gone; `NotSupported` where
    /// the channel has no way back; and as [`Sender::send`].
    pub fn call<'a>(
        &mut self,
        message: impl Into<Outgoing<'a>>,
        wait: Wait,
    ) -> Result<OwnedMessage, Error> {
        let message = message.into();
        self.ask(message, wait)
            .map_err(|error| self.explain(error.on("call", &self.address), &message))
    }

    fn ask(&mut self, message: Outgoing<'_>, wait: Wait) -> Result<OwnedMessage, Error> {
        let wait = wait.begin();
        self.question(message, wait)?;
        self.outbox.drain(&mut *self.end, self.traits.gather, wait)?;
        self.asked()?;
        self.answer(wait)
    }

    /// Sends the question, or the beginning of it.
    pub(crate) fn question(&mut self, message: Outgoing<'_>, wait: Wait) -> Result<Level, Error> {
        if self.end.back().is_none() {
            return Err(refuse("this channel has no way back for an answer")
                .with_hint("call over unix:, seqpacket:, dgram:, tcp: or udp:"));
        }
        let is_raw = self.options.is_raw();
        let deadline = wait.left().map_or(0, |left| u64::try_from(left.as_nanos()).unwrap_or(0));
        let limit = self.options.message_size;
        let answers = self.answers.get_or_insert_with(|| Box::new(Answers::new(limit)));
        answers.call += 1;
        let call = (!is_raw).then_some(CallBlock { call: answers.call, deadline });
        self.post(&Outgoing { call, ..message }, Post::Send, wait)
    }

    /// The question is asked, all of it.
    pub(crate) fn asked(&mut self) -> Result<(), Error> {
        if self.options.half_close { self.end.half_close() } else { Ok(()) }
    }

    /// Waits for the answer to the last question.
    pub(crate) fn answer(&mut self, wait: Wait) -> Result<OwnedMessage, Error> {
        let is_raw = self.options.is_raw();
        match (&mut self.answers, self.end.back()) {
            (Some(answers), Some(back)) => answers.receive(back, is_raw, wait),
            _ => Err(refuse("nothing was asked here")),
        }
    }

    /// What to wait on until an answer comes.
    #[cfg(feature = "tokio")]
    pub(crate) fn watched_back(&mut self) -> Result<crate::mechanism::Pollable<'_>, Error> {
        let back = self.end.back().ok_or_else(|| refuse("this channel has no way back"))?;
        back.pollable().map_err(|error| error.on("poll", &self.address))
    }
}
