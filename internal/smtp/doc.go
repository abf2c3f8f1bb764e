// Package smtp holds the words of SMTP (RFC 5321) that server, client and
// receiver simulator share: addresses, commands and their parameters, replies,
// and content with its line ends and dots. It opens no socket.
package smtp
