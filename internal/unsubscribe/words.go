package unsubscribe

import (
	"net/http"

	"golang.org/x/text/language"
)

// words are what pages say in one language. Those that end with a colon in their
// name's sense take values: %s stands for them.
type words struct {
	Lang string

	Leave, Ask, AskAll   string // of the page with one button: group or all mail, address
	Confirm, Preferences string
	Left, LeftAll, Undo  string
	Back                 string
	Choose, Get          string
	None, Save, Saved    string
	Blocked              string
	Gone, Trouble, Wrong string
	All                  string // what mail without a group is called
}

// languages are those that pages are in, the first one where none is asked for.
// The order is that of texts.
var languages = language.NewMatcher([]language.Tag{language.English, language.German, language.French, language.Spanish})

func wordsFor(r *http.Request) *words {
	tags, _, err := language.ParseAcceptLanguage(r.Header.Get("Accept-Language"))
	if err != nil {
		return &texts[0]
	}
	_, i, _ := languages.Match(tags...)
	return &texts[i]
}

var texts = [...]words{
	{Lang: "en", Leave: "Unsubscribe", Ask: "Press the button, and %s will get no more mail of the kind “%s”.", AskAll: "Press the button, and %s will get no more newsletters and other mail of this kind.",
		Confirm: "Unsubscribe", Preferences: "Choose what you get instead", Left: "Done. %s gets no more mail of the kind “%s”.",
		LeftAll: "Done. %s gets no more mail of this kind.", Undo: "That was a mistake: subscribe again", Back: "%s gets such mail again.",
		Choose: "What you get", Get: "Tick what %s is to get:", None: "Nothing of all this, and no other mail of this kind", Save: "Save", Saved: "Saved.",
		Blocked: "Other reasons keep mail from this address as well. Who sends it knows more.", Gone: "This link is too old: what was sent is not known here any more. Please answer the mail instead.",
		Trouble: "That did not work just now. Please try again in a minute.", Wrong: "This page did not understand the request. Please use its button.", All: "all mail of this kind"},
	{Lang: "de", Leave: "Abbestellen", Ask: "Nach einem Klick auf die Schaltfläche bekommt %s keine E-Mails der Art „%s“ mehr.", AskAll: "Nach einem Klick auf die Schaltfläche bekommt %s keine Newsletter und ähnlichen E-Mails mehr.",
		Confirm: "Abbestellen", Preferences: "Stattdessen auswählen, was Sie bekommen", Left: "Erledigt. %s bekommt keine E-Mails der Art „%s“ mehr.",
		LeftAll: "Erledigt. %s bekommt keine E-Mails dieser Art mehr.", Undo: "Das war ein Versehen: wieder bestellen", Back: "%s bekommt solche E-Mails wieder.",
		Choose: "Was Sie bekommen", Get: "Kreuzen Sie an, was %s bekommen soll:", None: "Nichts davon, und auch keine anderen E-Mails dieser Art", Save: "Speichern", Saved: "Gespeichert.",
		Blocked: "Auch andere Gründe halten E-Mails von dieser Adresse fern. Der Absender weiß mehr.", Gone: "Dieser Link ist zu alt: Was gesendet wurde, ist hier nicht mehr bekannt. Bitte antworten Sie stattdessen auf die E-Mail.",
		Trouble: "Das hat gerade nicht geklappt. Bitte versuchen Sie es in einer Minute noch einmal.", Wrong: "Diese Seite hat die Anfrage nicht verstanden. Bitte benutzen Sie die Schaltfläche.", All: "alle E-Mails dieser Art"},
	{Lang: "fr", Leave: "Se désabonner", Ask: "Après un clic sur le bouton, %s ne recevra plus de messages du type « %s ».", AskAll: "Après un clic sur le bouton, %s ne recevra plus de lettres d’information ni d’autres messages de ce type.",
		Confirm: "Se désabonner", Preferences: "Choisir plutôt ce que vous recevez", Left: "C’est fait. %s ne reçoit plus de messages du type « %s ».",
		LeftAll: "C’est fait. %s ne reçoit plus de messages de ce type.", Undo: "C’était une erreur : se réabonner", Back: "%s reçoit de nouveau ces messages.",
		Choose: "Ce que vous recevez", Get: "Cochez ce que %s doit recevoir :", None: "Rien de tout cela, ni aucun autre message de ce type", Save: "Enregistrer", Saved: "Enregistré.",
		Blocked: "D’autres raisons empêchent aussi l’envoi à cette adresse. L’expéditeur en sait plus.", Gone: "Ce lien est trop ancien : l’envoi n’est plus connu ici. Veuillez plutôt répondre au message.",
		Trouble: "Cela n’a pas fonctionné. Veuillez réessayer dans une minute.", Wrong: "Cette page n’a pas compris la demande. Veuillez utiliser son bouton.", All: "tous les messages de ce type"},
	{Lang: "es", Leave: "Darse de baja", Ask: "Al pulsar el botón, %s no recibirá más correo del tipo «%s».", AskAll: "Al pulsar el botón, %s no recibirá más boletines ni otro correo de este tipo.",
		Confirm: "Darse de baja", Preferences: "Elegir en su lugar lo que recibe", Left: "Hecho. %s ya no recibe correo del tipo «%s».",
		LeftAll: "Hecho. %s ya no recibe correo de este tipo.", Undo: "Fue un error: volver a suscribirse", Back: "%s vuelve a recibir este correo.",
		Choose: "Lo que recibe", Get: "Marque lo que %s debe recibir:", None: "Nada de esto, ni otro correo de este tipo", Save: "Guardar", Saved: "Guardado.",
		Blocked: "Hay también otros motivos por los que no se envía a esta dirección. El remitente sabe más.", Gone: "Este enlace es demasiado antiguo: aquí ya no se sabe qué se envió. Responda al mensaje, por favor.",
		Trouble: "No ha funcionado. Inténtelo de nuevo en un minuto, por favor.", Wrong: "Esta página no ha entendido la solicitud. Use su botón, por favor.", All: "todo el correo de este tipo"},
}
