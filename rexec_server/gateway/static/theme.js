// Light or dark: as the system has it, unless somebody chose otherwise here.

const STORED_AS = "rexec.theme";
const CHOICES = ["system", "light", "dark"];

function stored() {
  try {
    return CHOICES.includes(localStorage.getItem(STORED_AS)) ? localStorage.getItem(STORED_AS) : "system";
  } catch {
    return "system"; // no storage: the choice lasts as long as the page
  }
}

/** Makes the button go round the choices. */
export function installTheme(button) {
  let choice = stored();
  const apply = () => {
    document.documentElement.dataset.theme = choice;
    button.dataset.choice = choice;
    button.setAttribute("aria-label", `Colours: ${choice}`);
    button.title = `Colours: ${choice}`;
  };
  button.addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    try {
      localStorage.setItem(STORED_AS, choice);
    } catch {
      // as above
    }
    apply();
  });
  apply();
}
