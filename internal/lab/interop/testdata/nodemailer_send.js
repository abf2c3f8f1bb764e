// Composes one message with Nodemailer and hands it to the relay.
// Reads an order as JSON; writes the content that was sent.
'use strict';
const fs = require('fs');
const nodemailer = require('nodemailer');
const MailComposer = require('nodemailer/lib/mail-composer');

async function main() {
    const order = JSON.parse(fs.readFileSync(0, 'utf8'));
    const given = Buffer.from(order.content, 'base64');
    const message = new MailComposer({
        from: { name: 'Grüße', address: order.sender },
        to: order.recipient,
        subject: order.subject + ' Grüße',
        text: given.toString('utf8'),
        html: '<p>.\r\n..\r\n.Grüße</p>',
        attachments: [
            { filename: 'message.bin', content: given },
            { filename: 'ünïcode.txt', content: '.\r\n..\r\n', contentTransferEncoding: '7bit' }
        ]
    }).compile();
    const raw = await message.build();

    const transport = nodemailer.createTransport({
        host: order.host,
        port: order.port,
        name: 'nodemailer.example',
        secure: order.mode === 'tls',
        requireTLS: order.mode === 'starttls',
        ignoreTLS: order.mode === 'plain',
        tls: order.mode === 'plain' ? {} : { ca: fs.readFileSync(order.ca) },
        authMethod: order.mechanism,
        auth: { user: order.user, pass: order.password }
    });
    await transport.sendMail({ envelope: { from: order.sender, to: [order.recipient] }, raw });
    transport.close();
    process.stdout.write(raw);
}

main().catch(err => {
    console.error(err);
    process.exitCode = 1;
});
