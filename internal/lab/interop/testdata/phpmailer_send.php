<?php
// Composes one message with PHPMailer and hands it to the relay.
// Reads an order as JSON; writes the content that was sent.
require '/usr/share/php/libphp-phpmailer/autoload.php';

use PHPMailer\PHPMailer\PHPMailer;
use PHPMailer\PHPMailer\SMTP;

ini_set('display_errors', 'stderr');
$order = json_decode(stream_get_contents(STDIN), true, 16, JSON_THROW_ON_ERROR);
$given = base64_decode($order['content']);

$mail = new PHPMailer(true);
$mail->isSMTP();
$mail->SMTPDebug = SMTP::DEBUG_CONNECTION;
$mail->Debugoutput = function ($text) { fwrite(STDERR, $text . "\n"); };
$mail->Host = $order['host'];
$mail->Port = $order['port'];
$mail->Helo = 'phpmailer.example';
$mail->Timeout = 60;
$mail->SMTPAuth = true;
$mail->AuthType = $order['mechanism'];
$mail->Username = $order['user'];
$mail->Password = $order['password'];
$mail->SMTPAutoTLS = false;
$mail->SMTPSecure = ['starttls' => PHPMailer::ENCRYPTION_STARTTLS, 'tls' => PHPMailer::ENCRYPTION_SMTPS, 'plain' => ''][$order['mode']];
$mail->SMTPOptions = ['ssl' => ['cafile' => $order['ca'], 'verify_peer' => true, 'verify_peer_name' => true]];

$mail->CharSet = PHPMailer::CHARSET_UTF8;
$mail->setFrom($order['sender'], 'Grüße');
$mail->Sender = $order['sender'];
$mail->addAddress($order['recipient']);
$mail->Subject = $order['subject'] . ' Grüße';
$mail->Encoding = PHPMailer::ENCODING_8BIT;
$mail->Body = $given;
$mail->addStringAttachment($given, 'message.bin');
$mail->send();
// SMTP::data ends even what ends in a line break with one more.
fwrite(STDOUT, $mail->getSentMIMEMessage() . "\r\n");
