  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const stored = {
    get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
    set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* private mode */ } },
  };

  // The theme: that of the system until the button is used.
  const root = document.documentElement;
  const theme = document.getElementById('theme');
  const system = matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : system.matches);
  const label = () => { theme.textContent = isDark() ? 'Light mode' : 'Dark mode'; };
  const chosen = stored.get('vit_jax.theme');
  if (chosen === 'dark' || chosen === 'light') root.dataset.theme = chosen;
  theme.hidden = false;
  label();
  system.addEventListener('change', label);
  theme.addEventListener('click', () => {
    root.dataset.theme = isDark() ? 'light' : 'dark';
    stored.set('vit_jax.theme', root.dataset.theme);
    label();
  });
