"""Complaints of the public: from the form behind a pile's QR code to an answer in time."""
