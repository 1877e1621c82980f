"""Sends letters by one connection; tells the fate of each recipient as JSON. Run by tests/src/mailer/tool.rs."""

import json
import smtplib
import ssl
import sys

task = json.loads(sys.argv[1])


def fates(smtp, letter):
    with open(letter["file"], "rb") as file:
        # A text in bytes is sent as it is, but for leading dots.
        text = file.read().replace(b"\n", b"\r\n")
    mail_options = []
    if not text.isascii():
        mail_options.append("BODY=8BITMIME")
    if not all(address.isascii() for address in letter["to"]):
        # smtplib encodes commands as UTF-8 only when it has been told so.
        smtp.command_encoding = "utf-8"
        mail_options.append("SMTPUTF8")
    rcpt_options = ["NOTIFY=SUCCESS"] if letter["notify"] else []
    try:
        refused = smtp.sendmail(letter["from"], letter["to"], text, mail_options, rcpt_options)
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
    except smtplib.SMTPResponseException as error:
        refused = {to: (error.smtp_code, error.smtp_error) for to in letter["to"]}
    return {
        to: "%d %s" % (refused[to][0], refused[to][1].decode("utf-8", "replace")) if to in refused else "accepted"
        for to in letter["to"]
    }


with smtplib.SMTP(task["server"], 25, task["helo"], 60, (task["source"], 0)) as smtp:
    smtp.ehlo()
    if task["tls"]:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        smtp.starttls(context=context)
        smtp.ehlo()
    print(json.dumps([fates(smtp, letter) for letter in task["letters"]]))
