import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.HttpURLConnection;
import java.net.URI;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Gets URLs as an ordinary Java program does.
 *
 * <p>With a URL as argument, by the properties of the process. Without, for each line of standard input: a URL and
 * variables between tabs, of which JAVA_TOOL_OPTIONS sets properties; answers with one line.
 */
public class Get {
    private static final List<String> NAMES =
            List.of("http.proxyHost", "http.proxyPort", "https.proxyHost", "https.proxyPort", "http.nonProxyHosts");
    /** Options in double quotes, as the test writes them, or without any. The virtual machine's own reading is measured by starting it. */
    private static final Pattern OPTION = Pattern.compile("\"-D([^=\"]*)=([^\"]*)\"|-D([^=\\s\"]*)=([^\\s\"]*)");

    public static void main(String[] arguments) throws Exception {
        System.setProperty("http.keepAlive", "false");
        if (arguments.length > 0) {
            System.out.println(attempt(arguments[0]));
            return;
        }
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] fields = line.split("\t", -1);
            NAMES.forEach(System::clearProperty);
            for (String field : fields) {
                if (field.startsWith("JAVA_TOOL_OPTIONS=")) {
                    Matcher option = OPTION.matcher(plain(field));
                    while (option.find()) {
                        int group = option.group(1) == null ? 3 : 1;
                        System.setProperty(option.group(group), option.group(group + 1));
                    }
                }
            }
            System.out.println(attempt(plain(fields[0])));
        }
    }

    private static String attempt(String url) {
        try {
            HttpURLConnection connection = (HttpURLConnection) new URI(url).toURL().openConnection();
            connection.setConnectTimeout(20_000);
            connection.setReadTimeout(20_000);
            connection.getInputStream().readAllBytes();
            return "ok";
        } catch (Exception error) {
            return ("error " + error).replace('\n', ' ');
        }
    }

    private static String plain(String field) {
        return field.replace("\\t", "\t").replace("\\n", "\n").replace("\\\\", "\\");
    }
}
