package sink

import (
	"fmt"
	"slices"
	"strings"

	"postrider/internal/smtp"
)

// Voice names the server whose wording the replies have.
type Voice string

const (
	Plain   Voice = "plain"
	Gmail   Voice = "gmail"
	Outlook Voice = "outlook"
	Yahoo   Voice = "yahoo"
)

// Voices lists them all.
func Voices() []Voice { return []Voice{Plain, Gmail, Outlook, Yahoo} }

// ParseVoice reads a voice's name; the empty one is Plain.
func ParseVoice(s string) (Voice, error) {
	v := Voice(strings.ToLower(s))
	if v == "" {
		return Plain, nil
	}
	if !slices.Contains(Voices(), v) {
		return "", fmt.Errorf("%q is not a voice: plain, gmail, outlook or yahoo", s)
	}
	return v, nil
}

// kind is what a reply says, whatever its words.
type kind uint8

const (
	greeting kind = iota
	hello         // text of the first line of the reply to EHLO
	mailOK
	rcptOK
	dataOK
	dotOK
	resetOK
	bye
	userUnknown
	userDisabled
	overQuota
	relayDenied
	blocked
	spam
	virus
	unauthenticated
	policy
	tooBig
	greylist
	mailboxFull
	tempfail
	rateUser
	rateIP
	closing
	tooMany
	kinds
)

// line is a reply before its places are filled in. A newline in the text begins
// a new line of the reply.
type line struct {
	code     int
	enhanced string
	text     string
}

// wordings has the words of each voice. A voice that lacks a kind uses the
// plain one. The providers' words follow their public pages: Google's "Gmail
// SMTP errors and codes", Yahoo's Sender Hub "SMTP error codes", Microsoft's
// "NDR codes in Exchange Online" and "Troubleshooting" of Outlook.com Postmaster,
// with made-up sessions and addresses.
var wordings = map[Voice][kinds]line{
	Plain: {
		greeting:        {220, "", "{host} ESMTP Postrider sink"},
		hello:           {250, "", "{host}"},
		mailOK:          {250, "2.1.0", "Ok"},
		rcptOK:          {250, "2.1.5", "Ok"},
		dataOK:          {354, "", "End data with <CR><LF>.<CR><LF>"},
		dotOK:           {250, "2.0.0", "Ok: queued as {id}"},
		resetOK:         {250, "2.0.0", "Ok"},
		bye:             {221, "2.0.0", "Bye"},
		userUnknown:     {550, "5.1.1", "<{rcpt}>: Recipient address rejected: User unknown"},
		userDisabled:    {550, "5.2.1", "<{rcpt}>: The account is disabled"},
		overQuota:       {552, "5.2.2", "<{rcpt}>: Mailbox is full"},
		relayDenied:     {554, "5.7.1", "<{rcpt}>: Relay access denied"},
		blocked:         {554, "5.7.1", "Service unavailable; client host [{ip}] is on a block list"},
		spam:            {550, "5.7.1", "Message refused: it looks like spam"},
		virus:           {554, "5.7.0", "Message refused: it contains malware"},
		unauthenticated: {550, "5.7.26", "Message refused: neither SPF nor DKIM vouches for {fromdomain}"},
		policy:          {550, "5.7.1", "Message refused by the DMARC policy of {fromdomain}"},
		tooBig:          {552, "5.3.4", "Message is too large"},
		greylist:        {451, "4.7.1", "<{rcpt}>: Greylisted, please try again later"},
		mailboxFull:     {452, "4.2.2", "<{rcpt}>: Mailbox is full"},
		tempfail:        {451, "4.3.0", "Local error in processing, please try again later"},
		rateUser:        {450, "4.2.1", "<{rcpt}>: Mailbox receives too much mail, please try again later"},
		rateIP:          {421, "4.7.0", "Too much mail from {ip}, please try again later"},
		closing:         {421, "4.3.2", "{host} Service not available, closing transmission channel"},
		tooMany:         {452, "4.5.3", "Too many recipients"},
	},
	Gmail: {
		greeting:        {220, "", "{host} ESMTP {id} - gsmtp"},
		hello:           {250, "", "{host} at your service, [{ip}]"},
		mailOK:          {250, "2.1.0", "OK {id} - gsmtp"},
		rcptOK:          {250, "2.1.5", "OK {id} - gsmtp"},
		dataOK:          {354, "", "Go ahead {id} - gsmtp"},
		dotOK:           {250, "2.0.0", "OK {unix} {id} - gsmtp"},
		resetOK:         {250, "2.1.5", "Flushed {id} - gsmtp"},
		bye:             {221, "2.0.0", "closing connection {id} - gsmtp"},
		userUnknown:     {550, "5.1.1", "The email account that you tried to reach does not exist. Please try\ndouble-checking the recipient's email address for typos or\nunnecessary spaces. For more information, go to\n https://support.google.com/mail/?p=NoSuchUser {id} - gsmtp"},
		userDisabled:    {550, "5.2.1", "The email account that you tried to reach is inactive. For more\ninformation, go to\n https://support.google.com/mail/?p=DisabledUser {id} - gsmtp"},
		overQuota:       {552, "5.2.2", "The recipient's inbox is out of storage space and inactive. Please\ndirect the recipient to\n https://support.google.com/mail/?p=OverQuotaPerm {id} - gsmtp"},
		relayDenied:     {550, "5.7.1", "Relaying denied {id} - gsmtp"},
		blocked:         {550, "5.7.1", "[{ip}] Gmail has detected an unusual rate of\nunsolicited mail originating from your IP address. To protect\nour users from spam, mail sent from your IP address has been blocked.\nFor more information, go to\n https://support.google.com/mail/?p=UnsolicitedIPError {id} - gsmtp"},
		spam:            {550, "5.7.1", "[{ip}] Gmail has detected that this message is\nlikely unsolicited mail. To reduce the amount of spam sent to Gmail,\nthis message has been blocked. For more information, go to\n https://support.google.com/mail/?p=UnsolicitedMessageError {id} - gsmtp"},
		virus:           {552, "5.7.0", "This message was blocked because its content presents a potential\nsecurity issue. To review our message content and attachment content\nguidelines, go to\n https://support.google.com/mail/?p=BlockedMessage {id} - gsmtp"},
		unauthenticated: {550, "5.7.26", "Your email has been blocked because the sender is unauthenticated.\nGmail requires all senders to authenticate with either SPF or DKIM.\n\n Authentication results:\n DKIM = did not pass\n SPF [{fromdomain}] with ip: [{ip}] = did not pass\n\n For instructions on setting up authentication, go to\n https://support.google.com/mail/answer/81126#authentication {id} - gsmtp"},
		policy:          {550, "5.7.26", "Unauthenticated email from {fromdomain} is not accepted due to\ndomain's DMARC policy. Please contact the administrator of\n{fromdomain} domain if this was a legitimate mail. To learn about the\nDMARC initiative, go to\n https://support.google.com/mail/?p=DmarcRejection {id} - gsmtp"},
		tooBig:          {552, "5.3.4", "Your message exceeded Google's message size limits. To view our\nmessage size guidelines, go to\n https://support.google.com/mail/?p=MaxSizeError {id} - gsmtp"},
		greylist:        {421, "4.7.0", "[{ip}] Try again later, closing connection. {id} - gsmtp"},
		mailboxFull:     {452, "4.2.2", "The recipient's inbox is out of storage space. Please direct the\nrecipient to\n https://support.google.com/mail/?p=OverQuotaTemp {id} - gsmtp"},
		tempfail:        {451, "4.3.0", "Mail server temporarily rejected message. {id} - gsmtp"},
		rateUser:        {450, "4.2.1", "The user you are trying to contact is receiving mail at a rate that\nprevents additional messages from being delivered. Please resend your\nmessage at a later time. If the user is able to receive mail at that\ntime, your message will be delivered. For more information, go to\n https://support.google.com/mail/?p=ReceivingRate {id} - gsmtp"},
		rateIP:          {421, "4.7.28", "[{ip}] Gmail has detected an unusual rate of\nunsolicited mail originating from your IP address. To protect\nour users from spam, mail sent from your IP address has been\ntemporarily rate limited. For more information, go to\n https://support.google.com/mail/?p=UnsolicitedRateLimitError {id} - gsmtp"},
		closing:         {421, "4.3.0", "Temporary System Problem. Try again later {id} - gsmtp"},
		tooMany:         {452, "4.5.3", "Your message has too many recipients. For more information, go to\n https://support.google.com/mail/?p=TooManyRecipients {id} - gsmtp"},
	},
	Outlook: {
		greeting:        {220, "", "{host} Microsoft ESMTP MAIL Service ready at {date} [{id}]"},
		hello:           {250, "", "{host} Hello [{ip}]"},
		mailOK:          {250, "2.1.0", "Sender OK"},
		rcptOK:          {250, "2.1.5", "Recipient OK"},
		dataOK:          {354, "", "Start mail input; end with <CRLF>.<CRLF>"},
		dotOK:           {250, "2.6.0", "<{id}@{host}> [InternalId={n}, Hostname={host}] Queued mail for delivery"},
		resetOK:         {250, "2.0.0", "Resetting"},
		bye:             {221, "2.0.0", "Service closing transmission channel"},
		userUnknown:     {550, "5.5.0", "Requested action not taken: mailbox unavailable (S2017062302). [{host} {iso} {id}]"},
		userDisabled:    {550, "5.2.1", "Mailbox cannot be accessed [{host} {iso} {id}]"},
		overQuota:       {552, "5.2.2", "Mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded [{host} {iso} {id}]"},
		relayDenied:     {550, "5.7.64", "TenantAttribution; Relay Access Denied [{host} {iso} {id}]"},
		blocked:         {550, "5.7.1", "Unfortunately, messages from [{ip}] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3150). You can also refer your provider to http://mail.live.com/mail/troubleshooting.aspx#errors. [{host} {iso} {id}]"},
		spam:            {550, "5.7.1", "Message contains spam or virus, or sender is blocked: 5.7.1 Requested action not taken: message refused (S2017062302). [{host} {iso} {id}]"},
		virus:           {550, "5.7.703", "Your message can't be delivered because messages to this recipient are blocked by malware policy. [{host} {iso} {id}]"},
		unauthenticated: {550, "5.7.515", "Access denied, sending domain {fromdomain} doesn't meet the required authentication level. The sender's domain in the 5322.From address doesn't meet the authentication requirements defined for the sender. [{host} {iso} {id}]"},
		policy:          {550, "5.7.509", "Access denied, sending domain {fromdomain} does not pass DMARC verification and has a DMARC policy of reject. [{host} {iso} {id}]"},
		tooBig:          {552, "5.3.4", "Message size exceeds fixed maximum message size [{host} {iso} {id}]"},
		greylist:        {451, "4.7.500", "Server busy. Please try again later from [{ip}]. (S77719) [{host} {iso} {id}]"},
		mailboxFull:     {452, "4.2.2", "Mailbox full [{host} {iso} {id}]"},
		tempfail:        {451, "4.3.2", "Temporary server error. Please try again later. PRX5 [{host} {iso} {id}]"},
		rateUser:        {451, "4.3.2", "STOREDRV.Deliver; recipient thread limit exceeded [{host} {iso} {id}]"},
		rateIP:          {451, "4.7.650", "The mail server [{ip}] has been temporarily rate limited due to IP reputation. For e-mail delivery information, see https://postmaster.live.com (S775) [{host} {iso} {id}]"},
		closing:         {421, "4.3.2", "Service not active [{host} {iso} {id}]"},
		tooMany:         {452, "4.5.3", "Too many recipients [{host} {iso} {id}]"},
	},
	Yahoo: {
		greeting:        {220, "", "{host} ESMTP ready"},
		hello:           {250, "", "{host}"},
		mailOK:          {250, "", "sender <{from}> ok"},
		rcptOK:          {250, "", "recipient <{rcpt}> ok"},
		dataOK:          {354, "", "go ahead"},
		dotOK:           {250, "", "ok dirdel"},
		resetOK:         {250, "", "flushed"},
		bye:             {221, "", "{host}"},
		userUnknown:     {554, "", "delivery error: dd This user doesn't have a {rcptdomain} account ({rcpt}) [0] - {host}"},
		userDisabled:    {554, "", "delivery error: dd This mailbox is disabled ({rcpt}) [-5] - {host}"},
		overQuota:       {552, "", "1 Requested mail action aborted, mailbox full"},
		relayDenied:     {550, "", "relaying denied for <{rcpt}>"},
		blocked:         {553, "5.7.1", "[BL21] Connections will not be accepted from {ip}, because the ip is in Spamhaus's list; see https://postmaster.yahooinc.com/error-codes"},
		spam:            {554, "5.7.9", "Message not accepted for policy reasons. See https://postmaster.yahooinc.com/error-codes"},
		virus:           {554, "5.7.9", "Message not accepted for policy reasons. See https://postmaster.yahooinc.com/error-codes"},
		unauthenticated: {550, "5.7.9", "This mail has been blocked because the sender is unauthenticated. Yahoo requires all senders to authenticate with either SPF or DKIM. See https://postmaster.yahooinc.com/error-codes"},
		policy:          {554, "5.7.9", "Message not accepted for policy reasons. See https://postmaster.yahooinc.com/error-codes"},
		tooBig:          {552, "", "Message size exceeds maximum value allowed"},
		greylist:        {451, "4.3.2", "Internal error reading data; please try again later. See https://postmaster.yahooinc.com/error-codes"},
		mailboxFull:     {452, "", "1 Requested mail action not taken, mailbox full"},
		tempfail:        {451, "", "{host} Resources temporarily unavailable. Please try again later [#4.16.1]."},
		rateUser:        {450, "", "User is receiving mail too quickly"},
		rateIP:          {421, "4.7.0", "[TSS04] Messages from {ip} temporarily deferred due to unexpected volume or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes"},
		closing:         {421, "", "Service not available, closing transmission channel"},
		tooMany:         {452, "", "Too many recipients"},
	},
}

// prepared is a line; static is its wire form where nothing must be filled in.
type prepared struct {
	line
	static []byte
}

// voiceSet has every voice ready for one host name.
type voiceSet map[Voice]*[kinds]prepared

func prepareVoices(host string, enhanced bool) voiceSet {
	set := voiceSet{}
	for _, v := range Voices() {
		var p [kinds]prepared
		for k := range kinds {
			l := wordings[v][k]
			if l.code == 0 {
				l = wordings[Plain][k]
			}
			l.text = strings.ReplaceAll(l.text, "{host}", host)
			if !enhanced {
				l.enhanced = ""
			}
			p[k].line = l
			if !strings.Contains(l.text, "{") {
				p[k].static = smtp.NewReply(l.code, l.enhanced, l.text).AppendTo(nil)
			}
		}
		set[v] = &p
	}
	return set
}
